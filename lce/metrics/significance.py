"""Tests of whether two models differ on the same items, and of whether one association is due to chance (by scipy)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lce.metrics.items import random

PERMUTATIONS = 100_000
"""Up to so many rearrangements, a permutation test is exact; of more, it samples this number (as SEAT's code does)."""
TOGETHER = 1 << 24
"""Values that a permutation test rearranges at once, at most."""


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, Any]:
    """Exact two-sided McNemar test of two models' yes-or-no outcomes on the same items."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    changed = only_first + only_second
    p = stats.binomtest(only_first, changed, 0.5).pvalue if changed else 1.0
    return {"test": "exact McNemar", "p_value": float(p), "only_first": only_first, "only_second": only_second}


def wilcoxon(first: NDArray[Any], second: NDArray[Any], of: str) -> dict[str, Any]:
    """Two-sided Wilcoxon signed-rank test of paired values; ``of`` says what they are."""
    difference = first - second
    p = stats.wilcoxon(difference).pvalue if difference.any() else 1.0
    return {"test": "Wilcoxon signed-rank", "of": of, "p_value": float(p), "median": float(np.median(difference))}


def paired_permutation(first: NDArray[Any], second: NDArray[Any]) -> dict[str, Any]:
    """Two-sided permutation test of the mean difference of paired values, by exchanging the two models within pairs."""

    def mean_difference(a: NDArray[Any], b: NDArray[Any], axis: int = -1) -> Any:
        return (a - b).mean(axis)

    result = stats.permutation_test(
        (first, second),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=_batch(first, second),
        rng=random(),
    )
    return {"test": "paired permutation", "p_value": float(result.pvalue)}


def is_greater(first: NDArray[Any], second: NDArray[Any]) -> float:
    """One-sided permutation p-value of mean(first) − mean(second): share of equally large partitions that reach it."""

    def mean_difference(a: NDArray[Any], b: NDArray[Any], axis: int = -1) -> Any:
        return a.mean(axis) - b.mean(axis)

    result = stats.permutation_test(
        (first, second),
        mean_difference,
        permutation_type="independent",
        alternative="greater",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=_batch(first, second),
        rng=random(),
    )
    return float(result.pvalue)


def _batch(first: NDArray[Any], second: NDArray[Any]) -> int:
    """How many rearrangements fit into memory."""
    return min(10_000, max(1, TOGETHER // (len(first) + len(second))))
