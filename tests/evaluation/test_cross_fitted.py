"""Two halves of the occupations, each measured under the edit that was chosen by the other one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import planted
import pytest
import torch

from lce.edit.site_edit import FeatureEdit
from lce.evaluation.cross_fitted import about, cross_fitted, halves, joined
from lce.evaluation.site_edits import ABOUT_JOBS, HELD_OUT, Measured, Trial
from lce.foundations.errors import LceError
from lce.localize.feature_settings import FeatureRule
from lce.localize.feature_units import FeatureUnits, Reader
from lce.localize.features import select_features
from lce.metrics.forced_choice import ForcedChoiceScorer
from lce.metrics.occupation_pronouns import (
    OCCUPATIONS,
    SENTENCES,
    OccupationPronouns,
    OccupationPronounsScorer,
    is_male_dominated,
)
from lce.metrics.scoring import TokenBudget

SENTENCE_COUNT = 3
NAMES = list(ABOUT_JOBS)


def metric_of(he, name="occupation_pronouns"):
    """A metric of all occupations in a few sentences whose log P(he) is ``he`` everywhere."""
    rows = [(sentence, job) for sentence in range(SENTENCE_COUNT) for job in range(len(OCCUPATIONS))]
    made = OccupationPronouns(name, {"occupation_name": [list(OCCUPATIONS)[job] for _, job in rows]})
    made.update(
        item=torch.arange(len(rows)),
        occupation=torch.tensor([job for _, job in rows]),
        sentence=torch.tensor([sentence for sentence, _ in rows]),
        is_male=torch.tensor([is_male_dominated(list(OCCUPATIONS)[job]) for _, job in rows]),
        in_specification=torch.zeros(len(rows), dtype=torch.bool),
        he=torch.full((len(rows),), float(he)).double(),
        she=torch.zeros(len(rows)).double(),
    )
    return made


class Traced:
    """An edit that leaves a number in the model while it is applied."""

    def __init__(self, trace):
        self.trace = trace

    @contextmanager
    def applied(self, model):
        assert model["trace"] is None, "the other edit is still applied"
        model["trace"] = self.trace
        try:
            yield
        finally:
            model["trace"] = None


@pytest.mark.parametrize("seed", range(5))
def test_halves_share_nothing_cover_everything_and_have_as_many_of_both_sides(seed):
    one, other = halves(seed)
    assert not set(one) & set(other)
    assert sorted(one + other) == list(range(len(OCCUPATIONS)))
    jobs = list(OCCUPATIONS)
    for part in (one, other):
        assert part == sorted(part)
        assert sum(is_male_dominated(jobs[i]) for i in part) == len(part) / 2 == 10


def test_halves_depend_on_the_seed_alone():
    assert halves(0) == halves(0)
    splits = {frozenset(map(tuple, halves(seed))) for seed in range(20)}
    assert len(splits) == 20


def test_each_occupation_is_measured_once_under_the_edit_of_the_other_half():
    parts, model, names = halves(3), {"trace": None}, ("occupation_pronouns", "forced_choice")
    found = cross_fitted(
        [Traced(1), Traced(2)], parts, model, lambda one: [metric_of(one["trace"], name) for name in names]
    )
    assert model == {"trace": None}
    assert [metric.name for metric in found] == list(names)
    for metric in found:
        rows = metric.items()
        assert sorted(rows["item"]) == list(range(SENTENCE_COUNT * len(OCCUPATIONS)))
        for job, trace in zip(rows["occupation"], rows["he"], strict=True):
            chosen_by = 0 if job in parts[0] else 1
            assert trace == {0: 2, 1: 1}[chosen_by], "measured under the edit that it was chosen by"
        score = metric.scores()[metric.name]
        assert (score.n, score.details["sentences"]) == (len(OCCUPATIONS), SENTENCE_COUNT)
        names_of = metric.described()
        assert all(
            list(OCCUPATIONS)[job] == name
            for job, name in zip(names_of["occupation"], names_of["occupation_name"], strict=True)
        )


def test_an_error_while_measuring_takes_the_edit_back():
    model = {"trace": None}

    def fails(_):
        raise LceError("no")

    with pytest.raises(LceError, match="no"):
        cross_fitted([Traced(1), Traced(2)], halves(0), model, fails)
    assert model == {"trace": None}
    with pytest.raises(ValueError, match="zip"):
        cross_fitted([Traced(1)], halves(0), model, lambda _: [metric_of(0)])


def test_about_keeps_the_rows_of_the_named_occupations():
    whole = metric_of(1)
    part = about(whole, [0, 39, 7])
    assert set(part.items()["occupation"]) == {0, 7, 39}
    assert len(part.items()["item"]) == 3 * SENTENCE_COUNT
    assert part.name == whole.name
    assert len(whole.items()["item"]) == SENTENCE_COUNT * len(OCCUPATIONS), "the whole one is left as it was"
    assert not len(about(whole, []).items()["item"])


def test_joined_has_the_rows_of_both_and_the_score_of_the_whole():
    whole = metric_of(0)
    whole.he[0] += torch.arange(len(whole.he[0])) % 7
    parts = halves(1)
    one, other = (about(whole, part) for part in parts)
    both = joined(one, other)
    assert len(one.items()["item"]) == len(other.items()["item"]) == len(both.items()["item"]) / 2
    for order in (both, joined(other, one)):
        mine, theirs = order.scores()["occupation_pronouns"], whole.scores()["occupation_pronouns"]
        assert mine.value == pytest.approx(theirs.value, abs=1e-12)
        assert np.allclose(mine.resampled, theirs.resampled)
        assert mine.n == theirs.n


@pytest.fixture(scope="module")
def planted_edits():
    """The planted model, and edits by each half with scales of their own: 0 and -1."""
    model = planted.model().requires_grad_(False)
    units = FeatureUnits.of(model, planted.autoencoder())
    reader = Reader(model, planted.tokenizer(), "causal", units.site)
    activations = reader.activations(units.autoencoder, SENTENCES, "all")
    return model, [
        FeatureEdit(units, select_features(units, activations.among(part), FeatureRule()), activations, scale)
        for part, scale in zip(halves(0), (0.0, -1.0), strict=True)
    ]


def measured(model, leave_out=()):
    scorers = [OccupationPronounsScorer(name, SENTENCES[:1], planted.tokenizer(), "causal") for name in NAMES[:2]]
    scorers.append(ForcedChoiceScorer(planted.tokenizer(), "causal"))
    asked = [scorer for scorer, name in zip(scorers, NAMES, strict=True) if name not in leave_out]
    return [scorer.score(model, TokenBudget()) for scorer in asked]


def ratios(metric):
    rows = metric.items()
    return dict(zip(rows["occupation"].tolist(), rows["he"] - rows["she"], strict=True))


def test_of_the_planted_model_the_rows_are_those_of_the_two_edits(planted_edits):
    model, edits = planted_edits
    before, parts = measured(model), halves(0)
    found = cross_fitted(edits, parts, model, measured)
    assert set(found[2].answers()) == set(before[2].answers())
    for job, ratio in ratios(before[0]).items():
        assert ratios(found[0])[job] == pytest.approx((-1.0 if job in parts[0] else 0.0) * ratio, abs=1e-3)
    for one, again in zip(before, measured(model), strict=True):
        assert np.array_equal(one.items()["he"], again.items()["he"]), "no edit is left behind"
    other = planted.model()
    with torch.no_grad():
        other.model.embed_tokens.weight[3] += 1.0
    with pytest.raises(LceError, match="other weights than the one that this edit was made for"):
        cross_fitted(edits, parts, other, measured)


def test_what_a_result_says_of_an_edit_is_cross_fitted_and_of_a_control_is_not(planted_edits):
    model, edits = planted_edits
    evaluator = SimpleNamespace(suite=SimpleNamespace(measures=dict.fromkeys(NAMES)), texts={}, metrics=measured)
    about_edits = SimpleNamespace(model=model, settings=SimpleNamespace(seed=0), units=edits[0].units)
    compared = Measured(evaluator, about_edits, 2)
    before = ratios(compared.before[HELD_OUT])
    whole = replace(edits[0], scale=-3.0)
    row, metrics = compared.row(Trial("some", 0.0, whole, (edits[0], edits[1])))
    for job, ratio in ratios(metrics[HELD_OUT]).items():
        assert ratio == pytest.approx((-1.0 if job in halves(0)[0] else 0.0) * before[job], abs=1e-3)
    assert row["count"] == 2
    assert set(row["scores"]) == set(NAMES)
    control, metrics = compared.row(Trial("random 1", 0.0, edits[1], None), False)
    for job, ratio in ratios(metrics[HELD_OUT]).items():
        assert ratio == pytest.approx(-before[job], abs=1e-3)
    assert control["closed"]["value"] == pytest.approx(2, abs=1e-3)
    assert control["closed"]["interval"] == pytest.approx([2, 2], abs=1e-2)
