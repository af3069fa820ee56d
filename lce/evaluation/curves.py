"""A figure of how the scores change with α."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lce.foundations.figures import save

CURVES = {
    "weat8": "WEAT 8 effect size",
    "crows_pairs": "CrowS-Pairs [%]",
    "stereoset_ss": "StereoSet SS [%]",
    "occupation_pronouns": "occupation pronouns [nats]",
    "perplexity": "perplexity",
}


def alpha_curves(edits: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a score: the edited target over α with its interval, the random baselines, target and reference."""
    from matplotlib.figure import Figure

    edits = sorted(edits, key=lambda edit: edit["alpha"])
    alphas = [edit["alpha"] for edit in edits]
    shown = {name: label for name, label in CURVES.items() if name in edits[0]["scores"]}
    figure = Figure(figsize=(3.1 * len(shown), 3.0), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (name, label) in zip(panels, shown.items(), strict=True):
        scores = [edit["scores"][name] for edit in edits]
        axes.plot(alphas, [score["after"] for score in scores], "o-", color="tab:blue", label="edited")
        ends = [score["after_interval"] or (score["after"], score["after"]) for score in scores]
        axes.fill_between(alphas, *zip(*ends, strict=True), color="tab:blue", alpha=0.12, label="95 % interval")
        drawn = [(alpha, score) for alpha, score in zip(alphas, scores, strict=True) if score["uninformed"] is not None]
        axes.errorbar(
            [alpha for alpha, _ in drawn],
            [score["uninformed"] for _, score in drawn],
            [score["uninformed_std"] or 0 for _, score in drawn],
            fmt="s--",
            color="tab:gray",
            capsize=2,
            label="random baseline",
        )
        axes.axhline(scores[0]["before"], color="tab:red", linewidth=1, label="target")
        if scores[0]["reference"] is not None:
            axes.axhline(scores[0]["reference"], color="tab:green", linewidth=1, label="reference")
        axes.set_xlabel("α")
        axes.set_title(label, fontsize=10)
    panels[0].legend(fontsize=8)
    save(figure, path)
