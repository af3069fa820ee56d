"""MaxSkew@k: how far one group is in front where pictures of people are retrieved for a class (Geyik et al. 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lce.metrics.items import Score, random

RESAMPLES = 500
"""How often the blocks are resampled: each time, all classes are retrieved anew."""
Floats = NDArray[np.float64]


def max_skew(similarities: NDArray[Any], groups: NDArray[np.int64], blocks: NDArray[np.int64], k: int) -> Score:
    """MaxSkew@k on average over classes, with the blocks of pictures resampled.

    The k pictures nearest to a class are retrieved. The skew of a group is the logarithm of its share among them over
    its share among all pictures, and the larger one of both groups counts: 0 is balanced.

    Args:
        similarities: of pictures to classes, (n, classes).
        groups: 0 or 1 for each picture, (n).
        blocks: the number of each picture's block, (n).
    """
    _, block = np.unique(blocks, return_inverse=True)
    number = int(block.max()) + 1
    order = np.argsort(-similarities, axis=0, kind="stable")
    drawn = random().multinomial(number, np.full(number, 1 / number), RESAMPLES)
    values = np.array([_skew(weights[block], order, groups, k) for weights in (np.ones(number), *drawn)])
    return Score(float(values[0]), len(groups), values[1:])


def _skew(weights: NDArray[Any], order: NDArray[np.int64], groups: NDArray[np.int64], k: int) -> float:
    """The same with pictures weighing ``weights`` (n); ``order`` (n, classes) has the nearest first."""
    ranked = weights[order]
    before = ranked.cumsum(0) - ranked
    taken = np.clip(k - before, 0, ranked)
    skews = []
    for group in (0, 1):
        among = (taken * (groups[order] == group)).sum(0) / taken.sum(0)
        whole = weights[groups == group].sum() / weights.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            skews.append(np.log(among / whole))
    return float(np.max(skews, axis=0).mean())
