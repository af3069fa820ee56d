"""Regimes of curves over depth, and means over pictures with their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from lce.evaluation.leaning_curves import correlation, regime, side, sides
from lce.metrics.items import interval
from lce.metrics.picture_means import difference_of_groups, mean_of, ratio_of, share_taken

NAMES = ["woman", "man"]


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ([0.0, 0.5, 0.6, 0.4], "agreement (woman)"),
        ([0.9, -0.5, -0.6, -0.4], "agreement (man)"),
        ([0.0, 0.5, 0.6, -0.4], "divergence"),
        ([0.0, 0.1, 0.5, 0.1], "divergence"),
        ([0.9, 0.1, -0.1, 0.0], "neutral"),
        ([0.5], "agreement (woman)"),
    ],
)
def test_the_regime_goes_by_the_middle_and_the_end(curve, said):
    assert regime(curve, NAMES) == said


def test_the_neutral_zone_is_that_of_the_paper():
    assert [side(value) for value in (-0.2, -0.149, 0.0, 0.149, 0.15)] == [-1, 0, 0, 0, 1]
    assert sides([0.0, 0.0, 0.5, -0.3, 0.0, 0.0, 0.0, -0.9]) == (1, -1)


def test_what_does_not_vary_correlates_with_nothing():
    assert correlation(np.arange(5.0), 3 - 2 * np.arange(5.0)) == pytest.approx(-1)
    assert correlation(np.arange(5.0), np.ones(5)) is None
    assert correlation(np.arange(2.0), np.arange(2.0)) is None


def test_means_resample_blocks():
    values, blocks = np.array([1.0, 1.0, 5.0, 5.0]), np.array([0, 0, 1, 1])
    found = mean_of(values, blocks)
    assert (found.value, found.n) == (3, 4)
    assert set(found.resampled.tolist()) == {1.0, 3.0, 5.0}
    assert ratio_of(np.array([6.0, 2.0]), np.array([3.0, 1.0]), np.arange(2)).value == 2
    assert np.isnan(mean_of(values[:0], blocks[:0]).value)


def test_the_share_that_is_taken_away_is_paired():
    before = np.array([1.0, 2.0, 4.0])
    found = share_taken(before, before / 4, np.arange(3))
    assert found.value == pytest.approx(0.75)
    assert interval(found.resampled) == pytest.approx((0.75, 0.75))
    assert share_taken(before, 2 * before, np.arange(3)).value == pytest.approx(-1)


def test_the_difference_of_groups_leaves_others_out():
    groups, values = np.array([0, 1, 0, 1, 2]), np.array([3.0, 1.0, 5.0, 2.0, 100.0])
    found = difference_of_groups(values, groups, np.array([0, 0, 1, 1, 2]))
    assert (found.value, found.n) == (2.5, 4)
    low, high = interval(found.resampled)
    assert low == pytest.approx(2)
    assert high == pytest.approx(3)
