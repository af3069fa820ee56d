"""The checks of an audit: what each one compares, and that each one can fail."""

from __future__ import annotations

import pytest
import torch
from clips import LAYERS, loaded, planted
from head_audits import audit
from painted import paint

from lce.evaluation.head_checks import head_checks, reduction
from lce.evaluation.planted_head import STRENGTHS, Planted
from lce.evaluation.planted_head import planted as look_for_planted
from lce.metrics.group_association import ACCURACY, CORRECTED_V, LEAN


def score(value):
    return {"value": value, "interval": (value - 0.1, value + 0.1), "n": 40}


def checks(
    lean=0.5, v=0.4, null=0.1, accuracy=0.8, reduced=(0.6, 0.1), lost=0.0, random=(0.1,) * 20, others=(), strength=0.25
):
    before = {
        "scores": {LEAN: score(lean), CORRECTED_V: score(v)}, "null": {LEAN: null, CORRECTED_V: null},
        "plain_accuracy": score(accuracy) if accuracy is not None else {"value": None, "interval": None, "n": 0},
    }  # fmt: skip
    kept = {
        "edit": "mean", "reduced": {LEAN: score(reduced[0]), CORRECTED_V: score(reduced[1])},
        "differences": {ACCURACY: score(-lost)},
    }  # fmt: skip
    drawn = [{"reduced": {LEAN: value, CORRECTED_V: value}} for value in random]
    compared = {name: {LEAN: score(value), "null": {LEAN: 0.3}} for name, value in others}
    return head_checks(before, kept, drawn, compared, "gender", Planted(2, 1, strength))


def holds(**options):
    return {name: check["holds"] for name, check in checks(**options).items()}


def test_all_of_them_hold_where_all_is_well():
    found = checks()
    assert set(found) == {"H1", "H2", "H3", "H5"}
    for check in found.values():
        assert {"what", "value", "interval", "n", "bar", "holds"} <= set(check)
        assert check["holds"] is True


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("H1", {"lean": 0.05, "reduced": (0.6, 0.6)}),
        ("H1", {"v": 0.05}),
        ("H1", {"accuracy": 0.74}),
        ("H1", {"accuracy": None}),
        ("H2", {"reduced": (0.19, 0.1), "random": (-0.3,) * 20}),
        ("H3", {"random": [0.1] * 18}),
        ("H2", {"lost": 0.011}),
        ("H3", {"random": [0.1] * 19 + [0.7] * 2}),
        ("H3", {"random": []}),
        ("H3", {"random": [0.6] * 20}),
        ("H5", {"strength": None}),
    ],
)
def test_each_of_them_can_fail_alone(name, options):
    assert {key for key, value in holds(**options).items() if not value} == {name}


def test_accuracy_may_fall_by_a_point_and_rise_by_more():
    for lost in (0.01, 589 / 600 - 583 / 600, -0.3):
        assert all(holds(lost=lost).values())


def test_v_counts_where_it_exceeds_its_null_and_the_lean_does_not_shrink():
    found = checks(reduced=(0.1, 0.7), random=(0.2,) * 20)
    assert (found["H2"]["value"], found["H2"]["holds"]) == (0.7, True)
    assert "corrected V" in found["H2"]["what"]
    assert found["H3"]["value"] == 1.0
    assert found["H3"]["by_measure"] == {LEAN: 0.0, CORRECTED_V: 1.0}
    assert found["H3"]["n"] == 20
    found = checks(reduced=(0.1, 0.7), v=0.05)
    assert (found["H2"]["value"], found["H2"]["holds"]) == (0.1, False)


def test_the_lean_comes_first():
    found = checks(reduced=(0.3, 0.7))
    assert found["H2"]["value"] == 0.3
    assert "of the lean" in found["H2"]["what"]


@pytest.mark.parametrize(
    ("lean", "said"),
    [
        (0.2, "skin-tone 0.200 (within its null): weaker than by gender 0.500 (above its null)"),
        (0.7, "skin-tone 0.700 (above its null): stronger than by gender 0.500 (above its null)"),
    ],
)
def test_other_attributes_are_compared_with_this_one(lean, said):
    found = checks(others=[("gender", 0.5), ("age", 0.1), ("skin-tone", lean)])
    assert found["H4"]["value"] == lean
    assert said in found["H4"]["what"]
    assert set(found["H4"]["others"]) == {"gender", "age", "skin-tone"}
    assert "H4" not in checks(others=[("gender", 0.5)])


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        (0.4, 0.1, 0.75),
        (0.4, 0.4, 0),
        (0.4, 0.6, -0.5),
        (0.4, -0.1, 0.75),
        (-0.4, 0.2, 0.5),
        (0.4, -0.6, -0.5),
        (0, 1, 0),
    ],
)
def test_a_bias_shrinks_by_a_share_of_itself(before, after, share):
    assert reduction(before, after) == pytest.approx(share)


@pytest.mark.parametrize("is_biased", [True, False])
def test_a_head_that_is_made_to_carry_the_attribute_is_found(is_biased, tmp_path):
    """From some strength on, and its weights are what they were, bit for bit."""
    clip = planted(tmp_path, (0, 3)) if is_biased else loaded(tmp_path / "model")
    made = audit(clip, paint(tmp_path / "pictures"))
    before = {name: parameter.clone() for name, parameter in clip.model.named_parameters()}
    found = look_for_planted(made)
    assert found.layer == LAYERS - 1
    assert found.strength in (*STRENGTHS, None)
    scores = made.statistics.scores()[found.layer].abs()
    assert found.head == int(scores.argmin()), "of the last layer, the head that carried it least"
    assert all(torch.equal(p, before[name]) for name, p in clip.model.named_parameters())
