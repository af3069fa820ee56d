"""The statistics of a study, by scipy and statsmodels: over seeds, of pairs, and of ranks."""

import warnings
from collections.abc import Sequence
from math import isnan, nan
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lce.metrics.items import random

RESAMPLES = 10_000
FEW = 3
"""Of so few values, the interval of `Estimate` is their range: more than 2.5 % of the resamples repeat the least."""


class Estimate(NamedTuple):
    """A mean and its 95 % percentile-bootstrap interval, NaN where there is one value only."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = "" if isnan(self.low) else f" ({self.low:+.2f} to {self.high:+.2f})"
        return f"{self.value:+.2f}{interval}"


def over_seeds(frame: pd.DataFrame, by: Sequence[str], column: str = "value") -> pd.DataFrame:
    """Mean, standard deviation (n − 1) and n of ``column`` over the seeds of each group."""
    return frame.groupby(list(by), dropna=False, sort=False)[column].agg(["mean", "std", "count"]).reset_index()


def mean_interval(values: ArrayLike) -> Estimate:
    """The mean of at least one value; they are resampled."""
    data = np.asarray(values, float)
    if len(data) < 2:
        return Estimate(float(data.mean()), nan, nan)
    found = stats.bootstrap((data,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=random())
    return Estimate(float(data.mean()), *map(float, found.confidence_interval))


def about_intervals(seeds: int) -> str:
    """A sentence on intervals over so few seeds; empty if there are enough, or none."""
    return f" An interval over {seeds} seeds is their range." if 2 <= seeds <= FEW else ""


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """mean(first − second) by the paired bootstrap (Efron and Tibshirani 1993): pairs are resampled."""
    return mean_interval(np.asarray(first, float) - np.asarray(second, float))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation; NaN where one side is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return float(stats.spearmanr(first, second).statistic)


def wilcoxon_greater(first: Sequence[float], second: Sequence[float]) -> float:
    """One-sided p-value of the Wilcoxon signed-rank test for first > second; 1 where nothing differs."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    return float(stats.wilcoxon(difference, alternative="greater").pvalue) if difference.any() else 1.0


def bonferroni(p_values: Sequence[float]) -> list[float]:
    """Corrected for as many tests as there are."""
    return [float(p) for p in multipletests(p_values, method="bonferroni")[1]] if len(p_values) else []
