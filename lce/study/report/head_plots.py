"""The figure of a study's edits of attention heads: the share of the lean that is taken away, against their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from lce.study.report.head_edits import BAND, head_edits, means
from lce.study.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOWEST = -1.5
"""Share taken away below which a panel is cut off: there the lean has grown to more than twice itself."""


def taken_against_size(results: Results) -> Figure | None:
    """A row for each attribute, a panel for each edit: the selected heads with intervals, the band of random sets."""
    found = means(head_edits(results))
    if not len(found):
        return None
    from matplotlib.figure import Figure

    attributes, edits = (list(dict.fromkeys(found[name])) for name in ("attribute", "edit"))
    figure = Figure(figsize=(max(4.5, 3.2 * len(edits)), 0.6 + 2.7 * len(attributes)), layout="constrained")
    panels = figure.subplots(len(attributes), len(edits), squeeze=False, sharex=True, sharey="row")
    for line, attribute in zip(panels, attributes, strict=True):
        for axes, edit in zip(line, edits, strict=True):
            part = found[(found["attribute"] == attribute) & (found["edit"] == edit)].sort_values("size")
            _panel(axes, part)
            axes.set_title(f"{attribute}, {edit}", fontsize=10)
        lowest = line[0].get_ylim()[0]
        line[0].set_ylim(bottom=max(lowest, LOWEST))
        line[0].set_ylabel("share of the lean taken away")
    for axes in panels[-1]:
        axes.set_xlabel("number of heads")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _panel(axes: Axes, part: pd.DataFrame) -> None:
    sizes = part["size"].astype(float)
    low, high = part["taken"] - part["taken_low"], part["taken_high"] - part["taken"]
    spread = [low.clip(lower=0).fillna(0), high.clip(lower=0).fillna(0)]
    title = f"random sets, percentiles {BAND[0]} to {BAND[1]}"
    axes.fill_between(sizes, part["random_low"], part["random_high"], color="tab:gray", alpha=0.3, label=title)
    axes.plot(sizes, part["random"], color="tab:gray", linestyle=":", label="random sets, median")
    look: dict[str, Any] = {"marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.0, "color": "tab:blue"}
    axes.errorbar(sizes, part["taken"], spread, label="selected heads, 95 % interval", **look)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}".replace("-", "−"))
