"""Of a CLIP in which one head was made to carry gender, that head is found, and its edit takes the bias away."""

from __future__ import annotations

import numpy as np
import pytest
from clips import PLANTED, planted
from head_audits import audit, selected
from painted import paint

from lce.evaluation.head_audit import HeadTrial, singles
from lce.evaluation.head_checks import PERCENTILE
from lce.metrics.group_association import CORRECTED_V, LEAN


@pytest.fixture(scope="module", params=[PLANTED, (0, 3), (1, 2)], ids=str)
def made(request, tmp_path_factory):
    """An audit, and the planted head, which is in the last, the first or the middle layer."""
    folder = tmp_path_factory.mktemp("planted")
    clip = planted(folder, request.param)
    return audit(clip, paint(folder / "pictures"), matched="scene", views=2), request.param


def measured(made, trials):
    """What is left of each measure by head."""
    found = {}
    for trial, outcome in zip(trials, made.measured(trials), strict=True):
        [head] = made.units.heads_of(trial.selection)
        found[head] = made.association(outcome).values()
    return found


def test_the_model_is_biased_beyond_chance(made):
    scores, null = made[0].unedited.values(), made[0].unedited.null()
    for name in (LEAN, CORRECTED_V):
        assert scores[name] > np.percentile(null[name], PERCENTILE)


def test_the_planted_head_is_the_first_of_all(made):
    found, place = made
    scores = found.statistics.scores()
    assert divmod(int(scores.argmax()), scores.shape[1]) == place
    assert float(scores[place]) > 10 * float(scores.flatten().abs().sort(descending=True).values[1])
    first = found.localizer.ranked()[0]
    assert ((first.layer, first.head), first.rank) == (place, 1)
    assert found.units.heads_of(found.localizer.selection()) == [place]
    [text] = first.texts
    assert found.localizer.dictionary.texts[text.text] in found.attribute.words
    assert text.share == pytest.approx(1, abs=1e-4)


def test_only_its_ablation_takes_the_bias_away(made):
    """Every other head leaves it as it is. To first order, what the MLP makes of it stays, even in the last layer."""
    found, place = made
    before = found.unedited.values()
    for is_first_order in (False, True)[: 2 if place == PLANTED else 1]:
        left = measured(found, singles(found, is_first_order))
        assert len(left) == found.statistics.scores().numel()
        for head, values in left.items():
            if head == place:
                assert abs(values[LEAN]) < (0.3 if is_first_order else 0.1) * before[LEAN]
                assert is_first_order or values[CORRECTED_V] < 0.1 * before[CORRECTED_V]
            else:
                assert values[LEAN] > 0.85 * before[LEAN], head
                assert values[CORRECTED_V] > 0.85 * before[CORRECTED_V], head


@pytest.mark.parametrize("edit", ["zero", "projection"])
def test_so_do_the_other_edits_of_it(made, edit):
    found, place = made
    [left] = measured(found, [HeadTrial("chosen", selected(found, place), edit)]).values()
    assert abs(left[LEAN]) < 0.1 * found.unedited.values()[LEAN]


def test_a_head_that_writes_along_the_concept_alone_loses_all_by_projection(made):
    """It is then the mean-ablation, in the true edit and to first order."""
    found, place = made
    chosen = selected(found, place)
    for is_first_order in (False, True):
        trials = [HeadTrial("chosen", chosen, edit, is_first_order) for edit in ("mean", "projection")]
        mean, projection = found.measured(trials)
        assert projection.lean == pytest.approx(mean.lean, abs=1e-4)


def test_pictures_of_one_colour_show_no_bias(made, tmp_path):
    """Where the shapes of both groups look the same, there is nothing for the planted head to tell apart."""
    found, _ = made
    folder = paint(tmp_path / "pictures")
    for path in folder.glob("*-man-*.png"):
        path.write_bytes((folder / path.name.replace("-man-", "-woman-")).read_bytes())
    alike = audit(found.clip, folder, matched="scene")
    assert abs(alike.unedited.values()[LEAN]) < 1e-6
    assert alike.unedited.values()[CORRECTED_V] == 0
