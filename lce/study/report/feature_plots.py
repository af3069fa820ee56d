"""The figures of a study's edits of features: gap against perplexity, and gap against the number of features."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import pandas as pd

from lce.evaluation.site_edits import HELD_OUT
from lce.study.cells import DIRECTION
from lce.study.report.feature_edits import CONTROLS, edits_of, kinds_of, means, unedited
from lce.study.report.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "by counts": "tab:blue", "by difference": "tab:green", "by attribution": "tab:orange",
    "direction occupations": "tab:red", "direction pronouns": "tab:purple", "random features": "tab:gray",
    "matched features": "black",
}  # fmt: skip
MARKERS = "os^vPX*"
"""Of features by their scale; directions have diamonds, with α beside them."""
WIDE = 20.0
"""Change of the perplexity beyond which its axis is logarithmic away from zero [%]."""


def gap_against_perplexity(results: Results) -> Figure | None:
    """All kinds of edits in one picture: a line for each kind and number of features over the strengths."""
    frame = edits_of(results)
    if not len(frame):
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots()
    before = _unedited_line(axes, results)
    found = means(frame)
    scales = sorted(set(found[found["features"].notna()]["strength"]), reverse=True)
    markers = dict(zip(scales, cycle(MARKERS), strict=False))
    for kind in kinds_of(frame):
        here, colour = found[found["kind"] == kind], COLOURS[kind]
        look: dict[str, Any] = {"marker": "D" if kind.startswith(DIRECTION) else "o", "linestyle": _style(kind)}
        axes.plot([], [], color=colour, markersize=4, label=_title(kind), **look)
        for _, part in here.groupby(["rule", "count"], dropna=False, sort=False):
            _path(axes, kind, part, before, markers)
    for scale, marker in markers.items():
        label = f"s = {scale:g}".replace("-", "−")
        axes.plot([], [], color="black", marker=marker, markersize=5, linestyle="", fillstyle="none", label=label)
    axes.axhline(0, color="black", linewidth=0.6)
    if 100 * found["rise"].abs().max() > WIDE:
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("change of the perplexity [%]")
    axes.set_ylabel("gap, held-out occupations and sentences [nats]")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _path(axes: Axes, kind: str, part: pd.DataFrame, before: float | None, markers: dict[float, str]) -> None:
    """One kind and number of features over the strengths, from the unedited model on; controls as points alone."""
    is_direction, is_control = kind.startswith(DIRECTION), kind in CONTROLS.values()
    part = part.sort_values("strength", ascending=is_direction)
    x, y = 100 * part["rise"], part["gap"]
    if not is_control:
        start = ([], []) if before is None else ([0.0], [before])
        axes.plot([*start[0], *x], [*start[1], *y], color=COLOURS[kind], linewidth=0.9)
        low, high = y - part["gap_low"], part["gap_high"] - y
        spread = [low.clip(lower=0), high.clip(lower=0)]
        axes.errorbar(x, y, spread, fmt="none", ecolor=COLOURS[kind], elinewidth=0.6, alpha=0.4)
    for place, gap, strength in zip(x, y, part["strength"], strict=True):
        marker = "D" if is_direction else markers[strength]
        axes.plot(place, gap, marker, color=COLOURS[kind], markersize=3.5, alpha=0.6 if is_control else 1.0)
        if is_direction:
            _note(axes, f"α = {strength:g}".replace("-", "−"), place, gap)
    if not is_direction and not is_control:
        _note(axes, f"{part['features'].iloc[-1]:.0f}", x.iloc[-1], y.iloc[-1])


def _note(axes: Axes, text: str, x: float, y: float) -> None:
    axes.annotate(text, (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7)


def _style(kind: str) -> str:
    return "" if kind in CONTROLS.values() else "-"


def _title(kind: str) -> str:
    return f"features {kind}" if kind.startswith("by ") else kind


def _unedited_line(axes: Axes, results: Results) -> float | None:
    """The gap of the unedited model, drawn."""
    scores = unedited(results)
    if scores is None:
        return None
    gap = float(scores[HELD_OUT]["value"])
    axes.axhline(gap, color="tab:red", linewidth=0.8, linestyle=":", label="unedited")
    return gap


def gap_against_number(results: Results) -> Figure | None:
    """The gap over the number of features, a panel a scale; of random and matched features, the range of all draws."""
    frame = edits_of(results)
    frame = frame[frame["features"].notna()]
    if frame["features"].nunique() < 2:
        return None
    from matplotlib.figure import Figure

    scales = sorted(frame["strength"].unique(), reverse=True)
    figure = Figure(figsize=(max(4.5, 3.6 * len(scales)), 4), layout="constrained")
    panels = figure.subplots(1, len(scales), squeeze=False, sharey=True)[0]
    for axes, scale in zip(panels, scales, strict=True):
        here = frame[frame["strength"] == scale]
        _unedited_line(axes, results)
        for kind in kinds_of(frame):
            by = here[here["kind"] == kind].groupby("features")["gap"].agg(["mean", "min", "max"])
            if kind not in CONTROLS.values():
                columns = {"mean": "gap", "min": "gap_low", "max": "gap_high"}
                part = means(here[here["kind"] == kind]).set_index("features").sort_index()
                by = part[list(columns.values())].set_axis(list(columns), axis=1)
            spread = [(by["mean"] - by["min"]).clip(lower=0), (by["max"] - by["mean"]).clip(lower=0)]
            look: dict[str, Any] = {"marker": "o", "markersize": 3, "capsize": 2, "linewidth": 0.9}
            look |= {"color": COLOURS[kind], "linestyle": ":" if kind in CONTROLS.values() else "-"}
            axes.errorbar(by.index, by["mean"], spread, label=_title(kind), **look)
        axes.axhline(0, color="black", linewidth=0.6)
        numbers = sorted(here["features"].unique())
        axes.set_xscale("log")
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
        axes.minorticks_off()
        axes.set_title(f"s = {scale:g}".replace("-", "−"), fontsize=10)
        axes.set_xlabel("number of features")
    panels[0].set_ylabel("gap [nats]")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    return figure
