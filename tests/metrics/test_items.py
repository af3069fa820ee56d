"""The bootstrap against theory, and against scipy's where scipy has it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from lce.metrics.crows_pairs import CrowsPairs
from lce.metrics.items import interval
from lce.metrics.perplexity import Perplexity
from lce.metrics.significance import is_greater, mcnemar, paired_permutation, wilcoxon
from lce.metrics.stereoset import StereoSet


def test_the_interval_of_a_share_is_scipys() -> None:
    wins = np.arange(262) % 5 < 2
    metric = CrowsPairs("crows_pairs")
    more = torch.from_numpy(np.where(wins, -1.0, -2.0))
    ones = torch.ones(262, dtype=torch.bool)
    metric.update(item=torch.arange(262), more=more, less=torch.full((262,), -1.5).double(), is_stereo=ones)
    low, high = metric.scores()["crows_pairs"].as_json()["interval"]
    expected = stats.bootstrap((100.0 * wins,), np.mean, n_resamples=9999, method="percentile", rng=1)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=0.6)


def test_the_interval_of_a_ratio_is_scipys() -> None:
    source = np.random.default_rng(0)
    tokens = source.integers(1, 6, 300)
    loss = tokens * source.normal(3, 0.5, 300)
    metric = Perplexity("perplexity")
    metric.update(item=torch.arange(300), loss=torch.from_numpy(loss), tokens=torch.from_numpy(tokens))
    low, high = metric.scores()["perplexity"].as_json()["interval"]

    def ratio(loss: np.ndarray, tokens: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.exp(loss.sum(axis) / tokens.sum(axis))

    expected = stats.bootstrap((loss, tokens), ratio, paired=True, n_resamples=5000, method="percentile", rng=1)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), rel=0.01)


def stereoset(terms: int, each: int, agree: bool) -> StereoSet:
    """Half the answers stereotypical: all or none of a term's where they ``agree``, else every other one."""
    n = terms * each
    number = torch.arange(n)
    term = number // each
    wins = (term if agree else number) % 2 == 0
    metric = StereoSet("stereoset", {"term": [str(t) for t in term.tolist()]})
    values = {"stereotype": wins.double(), "anti_stereotype": torch.full((n,), 0.5).double()}
    metric.update(item=number, term=term, unrelated=torch.zeros(n).double(), **values)
    return metric


def test_stereoset_is_resampled_over_terms_and_over_their_examples() -> None:
    """Half the answers are yes: spread 50/√terms where a term's examples agree, 50/√examples where terms are alike."""
    spreads = [stereoset(40, 10, agree).scores()["stereoset_ss"].resampled.std() for agree in (True, False)]
    assert spreads[0] == pytest.approx(50 / 40**0.5, rel=0.1)
    assert spreads[1] == pytest.approx(50 / 400**0.5, rel=0.1)


def test_resampled_scores_are_the_same_every_time() -> None:
    first, second = (stereoset(7, 3, True).scores()["stereoset_icat"].resampled for _ in range(2))
    assert np.array_equal(first, second)


def test_an_undefined_score_has_no_interval() -> None:
    assert interval(np.full(10, np.nan)) is None
    assert interval(np.array([1.0, np.nan, 3.0])) == pytest.approx((1.05, 2.95))


def test_paired_tests_against_cases_worked_by_hand() -> None:
    yes = np.array([True] * 8 + [False] * 4)
    no = np.array([True] * 2 + [False] * 9 + [True])
    assert mcnemar(yes, no) == {
        "test": "exact McNemar",
        "p_value": pytest.approx(2 * (1 + 7) / 2**7),
        "only_first": 6,
        "only_second": 1,
    }
    a, b = np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 1.0])
    assert paired_permutation(a, b)["p_value"] == pytest.approx(2 / 8)
    assert wilcoxon(a, b, "x")["p_value"] == pytest.approx(2 / 8)
    assert is_greater(np.array([3.0, 2.0]), np.array([1.0, 0.0])) == pytest.approx(1 / 6)
