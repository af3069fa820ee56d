"""The cross-fitted lean: against a literal calculation, and how often chance alone reaches its null."""

from __future__ import annotations

import numpy as np
import torch

from lce.metrics.cross_fitted_lean import CrossFittedAssociation, Halves
from lce.metrics.group_association import LEAN

PEOPLE, CLASSES = 40, 6


def probabilities(seed: int, bias: float = 0.0) -> np.ndarray:
    """Of one view of each person; the first class is likelier for the even ones, who are the first group."""
    logits = np.random.default_rng(seed).normal(size=(PEOPLE, CLASSES))
    logits[::2, 0] += bias
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def association(values: np.ndarray, is_matched: bool = True) -> CrossFittedAssociation:
    """Pairs of people make up the blocks; every other block is in the other half."""
    number = np.arange(PEOPLE)
    group, half = number % 2, number // 2 % 2
    halves = Halves(half, values, np.ones(PEOPLE))
    by_side = np.concatenate([halves.leaning((group == 0)[None] * 1.0, (group == 1)[None] * 1.0, s) for s in (0, 1)])
    columns = {
        "item": number, "person": number, "block": number // 2, "group": group, "label": np.full(PEOPLE, -1),
        "predicted": values.argmax(1), "lean": (values * by_side[half]).sum(1), "half": half, "probabilities": values,
    }  # fmt: skip
    metric = CrossFittedAssociation("gender", CLASSES, is_matched)
    metric.update(**{name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()})
    return metric


def test_the_lean_is_that_of_each_half_by_the_classes_of_the_other():
    values = probabilities(0, 1.0)
    number = np.arange(PEOPLE)
    lean = 0.0
    for side in (0, 1):
        means = [values[(number // 2 % 2 != side) & (number % 2 == group)].mean(0) for group in (0, 1)]
        classes = means[0] > means[1]
        for group, sign in ((0, 1), (1, -1)):
            lean += sign * values[(number // 2 % 2 == side) & (number % 2 == group)][:, classes].sum() / (PEOPLE / 2)
    assert np.isclose(association(values).values()[LEAN], lean)


def test_the_null_of_no_exchange_is_the_lean_itself():
    metric = association(probabilities(1, 1.0))
    people = metric.by_person
    one, other = ((people.group == group)[None].astype(float) for group in (0, 1))
    metric.exchanged = lambda resamples: [(one, other)]
    assert np.isclose(metric.null(1)[LEAN][0], metric.values()[LEAN])


def test_chance_rarely_reaches_it_and_a_bias_does():
    for is_matched in (True, False):
        reached = [
            metric.values()[LEAN] > np.percentile(metric.null(200)[LEAN], 95)
            for metric in (association(probabilities(seed), is_matched) for seed in range(120))
        ]
        assert np.mean(reached) < 0.1
    metric = association(probabilities(0, 2.0))
    assert metric.values()[LEAN] > np.percentile(metric.null(200)[LEAN], 99)
