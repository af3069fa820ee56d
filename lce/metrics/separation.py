"""How well a score tells two groups apart: the area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lce.metrics.items import RESAMPLES, Score, random


def area_under_curve(scores: NDArray[Any], groups: NDArray[Any], blocks: NDArray[Any] | None = None) -> Score:
    """The probability that a score of group 0 exceeds one of group 1, ties counted half (Hanley and McNeil 1982).

    Args:
        scores: one for each item, (n).
        groups: 0 or 1; items of any other number are left out, (n).
        blocks: what is resampled together, (n): pairs, say; by default each item by itself.
    """
    kept = np.isin(groups, (0, 1))
    scores, groups = scores[kept], groups[kept]
    block = np.arange(len(scores)) if blocks is None else np.unique(blocks[kept], return_inverse=True)[1]
    first, second = groups == 0, groups == 1
    above = scores[first][:, None] - scores[second][None, :]
    wins = (above > 0) + 0.5 * (above == 0)
    number = int(block.max()) + 1 if len(block) else 1
    drawn = random().multinomial(number, np.full(number, 1 / number), RESAMPLES).astype(float)
    one, other = drawn[:, block[first]], drawn[:, block[second]]
    with np.errstate(invalid="ignore"):
        resampled = (one @ wins * other).sum(1) / (one.sum(1) * other.sum(1))
        value = float(wins.mean()) if wins.size else float("nan")
    return Score(value, int(kept.sum()), resampled)
