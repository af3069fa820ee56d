from __future__ import annotations

from typing import get_args

import pytest

from lce.config import StrategyName
from lce.edit.strategies import STRATEGIES, abbreviation, checked_strengths
from lce.foundations.errors import LceError


def test_the_settings_name_the_strategies_of_the_table() -> None:
    assert set(get_args(StrategyName)) == set(STRATEGIES)


def test_strengths_are_distinct_and_strategies_without_take_none() -> None:
    assert checked_strengths("linear", [2.0, 0.0, -3.5, 2.0]) == [2.0, 0.0, -3.5]
    assert checked_strengths("interpolation", [0.0, 0.5, 1.0]) == [0.0, 0.5, 1.0]
    assert checked_strengths("extrapolation", [-2.0, 0.0, 1.5]) == [-2.0, 0.0, 1.5]
    assert checked_strengths("pruning", [7.0]) == checked_strengths("mask-switch", []) == [1.0]


@pytest.mark.parametrize(
    ("strategy", "alphas", "message"),
    [
        ("interpolation", [0.5, 5.0], "interpolation takes α from 0 to 1, got 5; the strategy linear takes any α"),
        ("interpolation", [-0.1], "interpolation takes α from 0 to 1, got -0.1"),
        ("extrapolation", [2.0, 1.0], "extrapolation takes α below 0 or above 1, got 1"),
        ("linear", [0.0], "0 changes nothing"),
        ("linear", [float("inf")], "expected finite numbers"),
        ("swap", [1.0], "unknown 'swap'; known are linear, interpolation"),
    ],
)
def test_strengths_outside_of_a_strategy_s_range_are_refused(strategy: str, alphas: list[float], message: str) -> None:
    with pytest.raises(LceError, match=message):
        checked_strengths(strategy, alphas)


def test_abbreviations_are_the_paper_s() -> None:
    assert [abbreviation("linear", alpha) for alpha in (-1.0, 0.0, 1.0, 1.5)] == ["EP", "IP", "IP", "EP"]
    assert (abbreviation("pruning", float("nan")), abbreviation("mask-switch", 1.0)) == ("PR", "SW")
