"""How well a score tells two groups apart: the area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lce.metrics.items import Score
from lce.metrics.picture_means import resampled_weights


def separation(scores: NDArray[Any], groups: NDArray[Any]) -> float:
    """The probability that a score of group 0 exceeds one of group 1, ties counted half (Hanley and McNeil 1982).

    Args:
        scores: one for each item, (n).
        groups: 0 or 1; items of any other number are left out, (n).
    """
    wins = _wins(scores, groups)
    return float(wins.mean()) if wins.size else float("nan")


def area_under_curve(scores: NDArray[Any], groups: NDArray[Any], blocks: NDArray[Any] | None = None) -> Score:
    """`separation` with its interval.

    Args:
        blocks: what is resampled together, (n): pairs, say; by default each item by itself.
    """
    kept = np.isin(groups, (0, 1))
    blocks = np.arange(len(scores)) if blocks is None else blocks
    weights, groups, scores = resampled_weights(blocks[kept]), groups[kept], scores[kept]
    one, other = weights[:, groups == 0], weights[:, groups == 1]
    with np.errstate(invalid="ignore"):
        resampled = (one @ _wins(scores, groups) * other).sum(1) / (one.sum(1) * other.sum(1))
    return Score(separation(scores, groups), int(kept.sum()), resampled)


def _wins(scores: NDArray[Any], groups: NDArray[Any]) -> NDArray[Any]:
    """For each pair of an item of group 0 and one of group 1, whether the first exceeds the second."""
    above = scores[groups == 0][:, None] - scores[groups == 1][None, :]
    wins: NDArray[Any] = (above > 0) + 0.5 * (above == 0)
    return wins
