"""The statistics are scipy's and statsmodels'; here only that they are asked the right question."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lce.study.report.statistics import (
    about_intervals,
    bonferroni,
    mean_interval,
    over_seeds,
    paired_difference,
    spearman,
    wilcoxon_greater,
)

PAIRS = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 3.0, 5.0, 7.0])


def test_over_seeds_keeps_groups_without_a_value() -> None:
    frame = pd.DataFrame({"k": [0.1, 0.1, None, None], "value": [1.0, 3.0, 5.0, 5.0]})
    found = over_seeds(frame, ["k"])
    assert found["mean"].tolist() == [2.0, 5.0]
    assert found["std"].tolist() == [pytest.approx(2**0.5), 0.0]
    assert found["count"].tolist() == [2, 2]


@pytest.mark.parametrize(("values", "is_range"), [([3.0, 1.0], True), ([3.0, 1.0, 5.0], True), ([3, 1, 5, 2], False)])
def test_the_interval_of_few_values_is_their_range_and_said_to_be(values: list[float], is_range: bool) -> None:
    found = mean_interval(values)
    assert ((found.low, found.high) == (min(values), max(values))) is is_range
    assert bool(about_intervals(len(values))) is is_range
    assert not about_intervals(1)


def test_wilcoxon_asks_for_an_increase() -> None:
    assert wilcoxon_greater(PAIRS + 1 + PAIRS / 100, PAIRS) == pytest.approx(1 / 2**8)
    assert wilcoxon_greater(PAIRS, PAIRS + 1 + PAIRS / 100) == pytest.approx(1)
    assert wilcoxon_greater(PAIRS, PAIRS) == 1


def test_bonferroni_multiplies_and_stops_at_one() -> None:
    assert bonferroni([0.01, 0.4, 0.02]) == pytest.approx([0.03, 1.0, 0.06])
    assert bonferroni([]) == []


def test_paired_differences_ignore_what_pairs_share() -> None:
    shifted = paired_difference(PAIRS + 1, PAIRS)
    assert shifted == pytest.approx((1, 1, 1))
    assert mean_interval(PAIRS).low < 4 < mean_interval(PAIRS).high
    assert paired_difference(PAIRS, PAIRS[::-1]) == paired_difference(PAIRS, PAIRS[::-1]), "the same every time"


def test_ranks() -> None:
    assert spearman([1, 2, 3], [1, 8, 27]) == pytest.approx(1)
    assert np.isnan(spearman([1, 2, 3], [1, 1, 1]))
