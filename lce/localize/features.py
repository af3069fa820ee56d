"""Localisation among the features of an autoencoder: which of them carry what occupations say about gender.

Three rules. counts (Hegde 2024): features whose activation differs between male- and female-dominated occupations, and
which are active for many occupations of one side and few of the other. difference: those that differ most. attribution:
those that, to first order, contribute most to the gap in log P(he) − log P(she) between the two sides (gradient times
activation, summed over prompts, those of female-dominated occupations with a negative sign).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lce.foundations.errors import LceError
from lce.foundations.seeds import generator
from lce.localize.controls import random_baseline
from lce.localize.feature_settings import FeatureRule
from lce.localize.feature_units import FeatureUnits, Reading
from lce.localize.selection import Selection


def select_features(
    units: FeatureUnits, activations: Reading, rule: FeatureRule, attributions: Reading | None = None
) -> Selection:
    """The features that ``rule`` selects, with what is known about each: see `details_of`.

    Args:
        activations: of all features, by occupation.
        attributions: likewise; needed where the rule is attribution.

    Raises:
        LceError: none is selected, or there are not so many.
    """
    difference, by_counts = activations.difference, _by_counts(activations, rule)
    count = rule.count or int(by_counts.sum())
    if not count or (rule.rule == "counts" and not by_counts.any()):
        raise LceError(
            f"rule counts: no feature differs by more than {rule.difference:g} and is active (> {rule.activation:g}) "
            f"for at least {rule.own:.0%} of one side's occupations and at most {rule.other:.0%} of the other's; lower "
            "--difference, --activation or --own, raise --other, or select by another rule and --count"
        )
    if rule.rule == "counts":
        chosen = by_counts.nonzero().flatten()
    else:
        if rule.rule == "attribution" and attributions is None:
            raise LceError("rule attribution: needs attributions")
        scores = difference.abs() if attributions is None or rule.rule == "difference" else attributions.difference
        available = int((scores > 0).sum())
        if count > available:
            raise LceError(f"count: expected 1 to {available:,} features, got {count:,}")
        chosen = scores.topk(count).indices.sort().values
    selection = Selection.of(units, units, rule.rule, {units.name: chosen}.items())
    return replace(selection, details={units.name: details_of(chosen, activations, attributions, rule)})


def _by_counts(activations: Reading, rule: FeatureRule) -> Tensor:
    is_active, male = activations.values > rule.activation, activations.is_male
    shares = {True: is_active[male].float().mean(0), False: is_active[~male].float().mean(0)}
    difference = activations.difference
    chosen = torch.zeros_like(difference, dtype=torch.bool)
    for side, sign in ((True, 1), (False, -1)):
        is_own = (shares[side] >= rule.own - 1e-6) & (shares[not side] <= rule.other + 1e-6)
        chosen |= is_own & (sign * difference > rule.difference)
    return chosen


def details_of(
    chosen: Tensor, activations: Reading, attributions: Reading | None, rule: FeatureRule
) -> list[dict[str, Any]]:
    """Of each chosen feature: its side, mean activation and number of active occupations by side, and attribution."""
    male, values = activations.is_male, activations.values[:, chosen]
    is_active = values > rule.activation
    columns: dict[str, list[Any]] = {
        "feature": chosen.tolist(),
        "side": ["male" if value > 0 else "female" for value in activations.difference[chosen]],
        "male_activation": values[male].mean(0).tolist(),
        "female_activation": values[~male].mean(0).tolist(),
        "male_jobs": is_active[male].sum(0).tolist(),
        "female_jobs": is_active[~male].sum(0).tolist(),
    }
    if attributions is not None:
        columns["attribution"] = attributions.difference[chosen].tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def random_features(selection: Selection, activations: Reading, seed: int, is_matched: bool = False) -> Selection:
    """As many features by chance, among those that are active for any occupation and were not selected.

    Args:
        is_matched: for each selected feature, one of nearly the same mean activation.

    Raises:
        LceError: there are not so many.
    """
    (site,) = selection.shapes
    mean = activations.values.mean(0)
    population = mean > 0
    population[selection.indices[site]] = False
    if int(population.sum()) < selection.count:
        raise LceError(
            f"random baseline: only {int(population.sum()):,} other features are active for the occupations, fewer than"
            f" the {selection.count:,} selected ones"
        )
    if not is_matched:
        return replace(random_baseline(selection, {site: population}, seed), details={})
    chosen = _matched(mean, selection.indices[site], population, seed)
    return replace(selection, indices={site: chosen}, localization=f"matched-{selection.localization}", details={})


NEAREST = 10
"""A matched feature is drawn among so many of the nearest mean activations."""


def _matched(mean: Tensor, selected: Tensor, population: Tensor, seed: int) -> Tensor:
    """For each of the ``selected`` (n,), in random order, one of the free features with the nearest activations."""
    random, free, found = generator(seed, "matched features"), population.clone(), []
    for i in torch.randperm(len(selected), generator=random).tolist():
        distance = (mean - mean[selected[i]]).abs().masked_fill(~free, torch.inf)
        nearest = distance.topk(min(NEAREST, int(free.sum())), largest=False).indices
        drawn = nearest[torch.randint(len(nearest), (1,), generator=random)]
        free[drawn] = False
        found.append(int(drawn))
    return torch.tensor(sorted(found))


def about(selection: Selection) -> list[Mapping[str, Any]]:
    """What is known of each selected feature, in order."""
    return [row for site in selection.shapes for row in selection.details.get(site, [])]
