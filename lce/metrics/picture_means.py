"""Means over pictures, and shares of them that an edit takes away, with intervals that resample blocks of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lce.metrics.items import RESAMPLES, Score, random


def resampled_weights(blocks: NDArray[Any]) -> NDArray[np.float64]:
    """How often each item counts in each resample of the ``blocks`` (n): (RESAMPLES, n).

    Of a single block, there is nothing to resample: all are nan.
    """
    _, block = np.unique(blocks, return_inverse=True)
    number = int(block.max()) + 1 if len(block) else 1
    if number == 1:
        return np.full((RESAMPLES, len(block)), np.nan)
    drawn = random().multinomial(number, np.full(number, 1 / number), RESAMPLES)
    return drawn[:, block].astype(float)


def mean_of(values: NDArray[Any], blocks: NDArray[Any]) -> Score:
    """The mean of ``values`` (n), of which those of a block are resampled together."""
    return ratio_of(values, np.ones(len(values)), blocks)


def ratio_of(values: NDArray[Any], counts: NDArray[Any], blocks: NDArray[Any]) -> Score:
    """The sum of ``values`` (n) by that of ``counts`` (n), likewise: a mean of means, or of losses by tokens."""
    weights = resampled_weights(blocks)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(np.sum(values) / np.sum(counts)) if len(values) else float("nan")
        return Score(value, len(values), weights @ values / (weights @ counts))


def share_taken(before: NDArray[Any], after: NDArray[Any], blocks: NDArray[Any]) -> Score:
    """By which share of itself a mean of values, 0 or more, shrinks: 1 is all of it, below 0 it grows."""
    left = ratio_of(after, before, blocks)
    return Score(1 - left.value, left.n, 1 - left.resampled)


def difference_of_groups(values: NDArray[Any], groups: NDArray[Any], blocks: NDArray[Any]) -> Score:
    """The mean of ``values`` (n) over group 0 less that over group 1; items of other ``groups`` are left out."""
    weights = resampled_weights(blocks)
    means = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for number in (0, 1):
            own = groups == number
            plain = float(values[own].mean()) if own.any() else float("nan")
            means.append((plain, weights[:, own] @ values[own] / weights[:, own].sum(1)))
    return Score(means[0][0] - means[1][0], int(np.isin(groups, (0, 1)).sum()), means[0][1] - means[1][1])


def quotient(one: Score, other: Score) -> Score:
    """``one`` by ``other``, paired; nan where that is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(np.float64(one.value) / other.value)
        return Score(value, one.n, one.resampled / other.resampled)
