"""The figure of an evaluation's page: each score stands in the panel of its own unit."""

from __future__ import annotations

from lce.evaluation.report import _intervals

DETAILS = {
    "crows_pairs": {},
    "weat8": {"layers": [0.1, 0.3]},
    "occupation_pronouns": {"sentences": 5, "male_dominated": {"log_ratio": 1.0}},
    "perplexity": {"sentences": 300},
}


def test_scores_of_one_unit_share_a_panel():
    scores = {name: {"value": 2.0, "interval": [1.0, 3.0], **details} for name, details in DETAILS.items()}
    figure = _intervals({"scores": scores, "scores_against": scores}, ["one", "other"])
    panels = {axes.get_xlabel(): [text.get_text() for text in axes.get_yticklabels()] for axes in figure.axes}
    assert panels == {
        "percent": ["CrowS-Pairs (bias-bench)"],
        "effect size": ["WEAT 8"],
        "nats": ["occupation pronouns"],
        "perplexity": ["perplexity"],
    }
