"""The area under the curve: against scipy, with ties, and resampled by blocks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from lce.metrics.items import interval
from lce.metrics.separation import area_under_curve


def test_it_is_that_of_the_rank_test():
    random = np.random.default_rng(0)
    scores, groups = random.normal(size=80).round(1), random.integers(0, 3, 80)
    found = area_under_curve(scores, groups)
    one, other = scores[groups == 0], scores[groups == 1]
    assert found.value == pytest.approx(mannwhitneyu(one, other).statistic / (len(one) * len(other)))
    assert found.n == len(one) + len(other)
    low, high = interval(found.resampled)
    assert low < found.value < high


def test_its_ends_and_its_middle():
    groups = np.array([0, 0, 1, 1])
    assert area_under_curve(np.array([3.0, 2.0, 1.0, 0.0]), groups).value == 1
    assert area_under_curve(np.array([0.0, 1.0, 2.0, 3.0]), groups).value == 0
    assert area_under_curve(np.ones(4), groups).value == 0.5


def test_blocks_are_resampled_as_one():
    """Ten copies of each pair say no more than the pair does."""
    random = np.random.default_rng(1)
    pairs = 12
    scores, groups = random.normal(size=2 * pairs), np.arange(2 * pairs) % 2
    blocks = np.arange(2 * pairs) // 2
    once = area_under_curve(scores, groups, blocks)
    copied = area_under_curve(np.tile(scores, 10), np.tile(groups, 10), np.tile(blocks, 10))
    assert copied.value == pytest.approx(once.value)
    assert interval(copied.resampled) == pytest.approx(interval(once.resampled))
    alone = area_under_curve(np.tile(scores, 10), np.tile(groups, 10))
    assert np.std(alone.resampled) < 0.5 * np.std(copied.resampled)


def test_without_one_of_the_groups_there_is_none():
    found = area_under_curve(np.ones(3), np.zeros(3))
    assert np.isnan(found.value)
    assert interval(found.resampled) is None
