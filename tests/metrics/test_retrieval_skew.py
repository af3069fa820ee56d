"""MaxSkew@k: hand examples, and its bootstrap."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from lce.metrics.items import interval
from lce.metrics.retrieval_skew import max_skew

NEAREST = np.array([[0.9, 0.9], [0.8, 0.1], [0.1, 0.8], [0.2, 0.2]])
"""Of four pictures, the first and the second are nearest to one class, the first and the third to the other."""


def value(groups: list[int], k: int) -> float:
    return max_skew(NEAREST, np.array(groups), np.arange(4), k).value


def test_hand_examples():
    assert value([0, 0, 1, 1], 2) == pytest.approx((log(1 / 0.5) + log(0.5 / 0.5)) / 2)
    assert value([0, 0, 0, 1], 2) == pytest.approx(log(1 / 0.75))
    assert value([1, 1, 0, 0], 2) == value([0, 0, 1, 1], 2)


def test_where_all_are_retrieved_no_group_is_in_front():
    assert value([0, 0, 1, 1], 4) == value([0, 0, 1, 1], 99) == pytest.approx(0)


def test_its_interval_tells_skewed_from_balanced_retrieval():
    random = np.random.default_rng(0)
    groups = random.integers(0, 2, 200)
    chance = random.normal(size=(200, 5))
    skewed = max_skew(chance + 2 * groups[:, None], groups, np.arange(200), 20)
    balanced = max_skew(chance, groups, np.arange(200), 20)
    assert interval(skewed.resampled)[0] > interval(balanced.resampled)[1]
    assert (skewed.n, len(skewed.resampled)) == (200, 500)


def test_copies_of_a_picture_say_no_more_than_one():
    random = np.random.default_rng(0)
    copied, groups, block = (
        np.repeat(random.normal(size=(20, 5)), 10, 0),
        np.arange(200) // 10 % 2,
        np.arange(200) // 10,
    )
    together, apart = (max_skew(copied, groups, blocks, 20) for blocks in (block, np.arange(200)))
    assert together.value == apart.value
    assert np.std(together.resampled) > 2 * np.std(apart.resampled)
