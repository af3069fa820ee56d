"""Audits of attention heads: every trial is what the edited model predicts, and the pieces are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from clips import HEADS, LAYERS, loaded, tiny
from head_audits import audit, selected
from painted import paint
from torch.nn import functional as F

from lce.evaluation.head_audit import HeadTrial, singles
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator
from lce.models.image_states import ImageStates

SETS = [(0, 1)], [(2, 3)], [(0, 1), (2, 3)], [(1, 0), (1, 2), (2, 0)]
EDITS = ("mean", "zero", "projection")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("audits")


@pytest.fixture(scope="module")
def clip(folder):
    return loaded(folder / "model")


@pytest.fixture(scope="module")
def pictures(folder):
    return paint(folder / "pictures")


@pytest.fixture(scope="module")
def made(clip, pictures):
    return audit(clip, pictures, views=2, matched="scene")


def trials(made, is_first_order=False):
    return [HeadTrial("chosen", selected(made, *heads), edit, is_first_order) for heads in SETS for edit in EDITS]


def pixels(made):
    return torch.cat([found for _, found in made.batches.read("")])


def probabilities(made, embeddings):
    return (embeddings @ made.classes.T * made.clip.scale).softmax(1)


def test_its_columns_are_those_of_the_table(made):
    assert len(made.group) == 2 * 48
    assert made.group.tolist() == [picture.group for picture in made.pictures.pictures for _ in range(2)]
    assert (made.label >= 0).sum() == 2 * 36
    assert len(np.unique(made.person)) == 24, "two tones of each subject of each gender"
    assert len(np.unique(made.block)) == 12
    assert made.item.tolist() == [i for i in range(48) for _ in range(2)]


def test_the_unedited_model_predicts_what_it_predicts(made):
    found = made.outcome(made.similarities)
    wanted = probabilities(made, ImageStates.of(made.clip.tower, pixels(made)).embedding())
    assert found.predicted.tolist() == wanted.argmax(1).tolist()
    lean = (wanted * torch.from_numpy(made.leaning)).sum(1)
    np.testing.assert_allclose(found.lean, lean, atol=1e-5)
    right = wanted.argmax(1).numpy() == made.label
    assert made.unedited.values()["accuracy"] == pytest.approx(right[made.label >= 0].mean())


def test_every_true_trial_is_the_edited_model(made):
    asked = trials(made)
    outcomes = made.measured(asked, kept=len(asked))
    model, seen = made.clip.model, pixels(made)
    for trial, outcome in zip(asked, outcomes, strict=True):
        with made.edit(trial.selection, trial.edit).applied(model), torch.no_grad():
            edited = F.normalize(model.get_image_features(pixel_values=seen).pooler_output, dim=1)
        wanted = probabilities(made, edited)
        assert outcome.predicted.tolist() == wanted.argmax(1).tolist()
        torch.testing.assert_close(outcome.similarities, edited @ made.classes.T, atol=1e-5, rtol=0)
        np.testing.assert_allclose(outcome.lean, (wanted * torch.from_numpy(made.leaning)).sum(1), atol=1e-5)


def test_every_first_order_trial_is_arithmetic_on_the_terms(made):
    asked = trials(made, is_first_order=True)
    outcomes = made.measured(asked, kept=len(asked))
    states, reading = ImageStates.of(made.clip.tower, pixels(made)), made.statistics.reading
    terms, whole = reading.head_terms(states), states.embedding()
    read = reading.map.T @ made.direction
    for trial, outcome in zip(asked, outcomes, strict=True):
        changed = whole.clone()
        for layer, head in made.units.heads_of(trial.selection):
            own = terms[:, layer, head]
            lost = own if trial.edit == "zero" else own - own.mean(0)
            if trial.edit == "projection":
                lost = torch.outer(lost @ made.direction, reading.map @ read / read.square().sum())
                after = own - lost
                np.testing.assert_allclose((after @ made.direction).std(), 0, atol=1e-5)
            changed = changed - lost
        wanted = F.normalize(changed, dim=1) @ made.classes.T
        torch.testing.assert_close(outcome.similarities, wanted, atol=1e-5, rtol=0)


def test_where_nothing_follows_a_head_first_order_is_all_there_is(tmp_path, pictures):
    """In the last layer, without its MLP and without the bias of the final normalisation, zero-ablation is exact."""
    model = tiny()
    model.vision_model.encoder.layers[-1].mlp.fc2.weight.zero_()
    model.vision_model.encoder.layers[-1].mlp.fc2.bias.zero_()
    model.vision_model.post_layernorm.bias.zero_()
    made = audit(loaded(tmp_path / "linear", model), pictures)
    selection = selected(made, (2, 0), (2, 3))
    asked = [HeadTrial("chosen", selection, edit, first) for edit in EDITS for first in (False, True)]
    outcomes = made.measured(asked, kept=len(asked))
    change = [outcome.similarities - made.similarities for outcome in outcomes]
    for edit, true, first in zip(EDITS, change[::2], change[1::2], strict=True):
        if edit == "zero":
            torch.testing.assert_close(first, true, atol=1e-5, rtol=0)
        else:  # the mean is that of z in the one, and of the terms in the other
            assert float((first - true).norm() / true.norm()) < 0.35


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_size_of_batches_makes_no_difference(made, clip, pictures, batch_size):
    other = audit(clip, pictures, views=2, matched="scene", batch_size=batch_size)
    torch.testing.assert_close(other.similarities, made.similarities, atol=1e-5, rtol=0)
    asked = trials(made)[::5] + trials(made, True)[::5]
    for one, another in zip(made.measured(asked), other.measured(asked), strict=True):
        np.testing.assert_allclose(another.lean, one.lean, atol=1e-5)
        assert one.similarities is None


def test_every_head_is_ablated_alone(made):
    for is_first_order in (False, True):
        found = singles(made, is_first_order)
        assert [made.units.heads_of(trial.selection) for trial in found] == [
            [(layer, head)] for layer in range(LAYERS) for head in range(HEADS)
        ]
        assert {(trial.role, trial.edit, trial.is_first_order) for trial in found} == {
            ("single", "mean", is_first_order)
        }


def test_trials_with_heads_in_common_share_their_tensors(made):
    chosen = [HeadTrial("random", selected(made, (0, 1), (2, head)), "mean") for head in range(HEADS)]
    found = made._outputs([*chosen, HeadTrial("random", selected(made, (0, 1)), "zero")])
    assert len({id(outputs[0][0]) for outputs in found[:HEADS]}) == 1
    assert len({id(outputs[2][0]) for outputs in found[:HEADS]}) == HEADS
    assert found[HEADS][0][0] is not found[0][0][0]


def test_leaning_classes_come_from_the_other_half(made, clip, pictures):
    """Those of a block from people in other blocks alone, whatever is predicted of its own."""
    other = audit(clip, pictures, matched="scene")
    similarities = torch.randn(48, 3, generator=torch.Generator().manual_seed(0)) / clip.scale
    other.__dict__["_first"] = made.statistics, similarities
    half = torch.randperm(12, generator=generator(0, "halves")).numpy()[other.block] % 2
    probabilities = (similarities * clip.scale).softmax(1).numpy()
    kinds = set()
    for side in (0, 1):
        means = [probabilities[(half != side) & (other.group == group)].mean(0) for group in (0, 1)]
        assert (other.cross_fitted_leaning[half == side] == (means[0] > means[1])).all()
        kinds.add(tuple(means[0] > means[1]))
    assert len(kinds) == 2, "the halves differ here"


def test_named_classes_lean_for_everyone(clip, pictures):
    named = audit(clip, pictures, leaning=["square", "triangle"])
    assert (named.leaning == [False, True, True]).all()
    with pytest.raises(LceError, match="leaning: 'hexagon' is none of the classes, circle, square, triangle"):
        _ = audit(clip, pictures, leaning=["square", "hexagon"]).leaning


def test_a_dictionary_of_ones_own(clip, pictures, tmp_path):
    (tmp_path / "words.txt").write_text("a red thing\n\n  green  \nold woman\n", encoding="utf-8")
    made = audit(clip, pictures, dictionary=str(tmp_path / "words.txt"))
    assert made.localizer.dictionary.texts == [*made.attribute.words, "a red thing", "green"]
    default = audit(clip, pictures).localizer.dictionary
    assert default.texts == [*made.attribute.words, "circle", "square", "triangle"]
    for bad in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(LceError, match=r"dictionary .*: cannot be read as UTF-8 text"):
            _ = audit(clip, pictures, dictionary=str(bad)).localizer.dictionary


def test_too_few_people_of_a_group_are_refused(clip, pictures):
    where = {"subject": ["man circle 0", "man circle 1", "woman circle 0", "woman square 0", "man square 0",
                         "woman circle 1"]}  # fmt: skip
    with pytest.raises(LceError, match="pictures: 3 people of the group woman; at least 4 are needed"):
        audit(clip, pictures, where=where, classes=["circle", "square"])
