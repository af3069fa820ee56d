"""The figures of a study: the paper's figures 3 to 7, one colour per direction, with the spread over seeds.

Those of edits of features are in `feature_plots`, that of attention heads in `head_plots`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from lce.edit.strategies import abbreviation
from lce.foundations.labels import label
from lce.localize.heat_map import heat_map
from lce.study.report.aggregates import curve, densities
from lce.study.report.feature_plots import gap_against_number, gap_against_perplexity
from lce.study.report.head_plots import taken_against_size
from lce.study.report.results import EDIT, Results
from lce.study.report.statistics import over_seeds
from lce.study.settings import ANTI_STEREOTYPICAL, BOTH_WAYS, NEUTRAL, STEREOTYPICAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {STEREOTYPICAL: "tab:red", ANTI_STEREOTYPICAL: "tab:blue", NEUTRAL: "tab:gray"}
"""By target; the neutral target's two references share its panels."""
LINES = {"mask": "-", "value": "--"}
BALANCED = {"stereoset_ss": 50, "crows_pairs": 50}
Figures = dict[str, "Figure"]


def figures(results: Results) -> Figures:
    """All figures that the results suffice for, by name."""
    makers: dict[str, Callable[[Results], Any]] = {
        "localisation-mask": lambda r: _heat(r, "mask"),
        "localisation-value": lambda r: _heat(r, "value"),
        "strategies": strategies,
        "size": size,
        "strength": strength,
        "neutral": neutral,
        "features": gap_against_perplexity,
        "features-number": gap_against_number,
        "heads": taken_against_size,
    }
    found = {name: make(results) for name, make in makers.items()}
    return {name: figure for name, figure in found.items() if figure is not None}


def _heat(results: Results, localization: str) -> Figure | None:
    frame = densities(results)
    frame = frame[frame["localization"] == localization]
    if not len(frame):
        return None
    seeds = sum(cell.sparsity == results.study.sparsity for cell in results.of("compare"))
    rows = frame[["layer", "component", "selected", "weights"]].astype(object).itertuples(index=False)
    cells = {
        (None if pd.isna(layer) else int(layer), part): (round(chosen / seeds), round(of / seeds))
        for layer, part, chosen, of in rows
    }
    share = frame["selected"].sum() / frame["weights"].sum()
    title = f"{localization}-based, {results.study.sparsity:.0%} sparse: {share:.2%} of all weights"
    return heat_map(cells, title)


def _panels(number: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.5, 3.6 * number), height), layout="constrained")
    return figure, figure.subplots(1, number, squeeze=False)[0]


def _line(axes: Axes, x: pd.Series, found: pd.DataFrame, colour: str, style: str, name: str) -> None:
    """Means over seeds with their standard deviations."""
    look: dict[str, Any] = {"linestyle": style, "marker": "o", "markersize": 3, "capsize": 2, "color": colour}
    axes.errorbar(x, found["mean"], found["std"].fillna(0), label=name, **look)


def _finish(figure: Figure, panels: Sequence[Axes], names: Sequence[str], x: str = "") -> Figure:
    for axes, name in zip(panels, names, strict=True):
        balanced = BALANCED.get(name, None if name in ("perplexity", "stereoset_lm") else 0)
        if balanced is not None:
            axes.axhline(balanced, color="black", linewidth=0.8, linestyle=":")
        if name == "perplexity":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.tick_params(axis="y", which="both", labelsize=8)
        axes.set_title(label(name), fontsize=10)
        axes.set_xlabel(x)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    return figure


def edit_name(strategy: str, alpha: float, localization: str | None = None) -> str:
    """An edit as the paper writes it: IP α=0.5, EP α=−2, PR, SW."""
    short = abbreviation(strategy, alpha)
    text = short if pd.isna(alpha) else f"{short} α={alpha:g}".replace("-", "−")
    return text if localization is None else f"{localization}: {text}"


def strategies(results: Results) -> Figure | None:
    """Before → after of every strategy, both directions: one panel a measure (the paper's figure 4)."""
    frame = results.at_paper_settings
    frame = frame[frame["sparsity"] == results.study.sparsity]
    if not len(frame) or not results.bias:
        return None
    figure, panels = _panels(len(results.bias), 4.6)
    for axes, metric in zip(panels, results.bias, strict=True):
        here = frame[frame["metric"] == metric]
        means = over_seeds(here, [*EDIT[:7]]).merge(over_seeds(here, EDIT[:7], "before"), on=EDIT[:7])
        names = [edit_name(r.strategy, r.alpha, r.localization) for r in means.itertuples()]
        order = {name: i for i, name in enumerate(dict.fromkeys(names))}
        for name, row in zip(names, means.itertuples(), strict=True):
            shift = -0.14 if row.target == STEREOTYPICAL else 0.14
            x, colour = order[name] + shift, COLOURS[row.target]
            axes.errorbar(x, row.mean_x, 0 if pd.isna(row.std_x) else row.std_x, color=colour, alpha=0.35, capsize=2)
            axes.annotate(
                "",
                (x, row.mean_x),
                (x, row.mean_y),
                arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0},
            )
            axes.plot(x, row.mean_y, "o", color=colour, markersize=3)
        for target in (STEREOTYPICAL, ANTI_STEREOTYPICAL):
            axes.plot([], [], color=COLOURS[target], label=f"{target} target")
        axes.set_xticks(range(len(order)), list(order), rotation=90, fontsize=8)
    return _finish(figure, panels, results.bias)


def size(results: Results) -> Figure | None:
    """The bias after interpolation and extrapolation over k, value-based (figure 5); thin: the unedited target."""
    frame = results.both_ways[results.both_ways["localization"] == "value"]
    frame = frame[(frame["sparsity"] == results.study.sparsity) & frame["alpha"].isin((0.5, 1.0, 2.0))]
    if frame["k"].nunique() < 3:
        return None
    names = [*results.bias, "perplexity"]
    figure, panels = _panels(len(names), 3.8)
    lines = {0.5: ":", 1.0: "-", 2.0: "--"}
    for axes, metric in zip(panels, names, strict=True):
        here = frame[frame["metric"] == metric]
        for (target, alpha), part in here.groupby(["target", "alpha"], sort=False):
            found = over_seeds(part, ["k"]).assign(
                share=lambda f, part=part: f["k"].map(part.groupby("k")["selected_share"].mean())
            )
            found = found.sort_values("share")
            _line(axes, 100 * found["share"], found, COLOURS[target], lines[alpha], f"{target}, α = {alpha:g}")
        for target, part in here.groupby("target", sort=False):
            axes.axhline(part["before"].mean(), color=COLOURS[str(target)], linewidth=0.8, alpha=0.5)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    return _finish(figure, panels, names, "edited weights [% of all]")


def _curves(results: Results, pairs: Sequence[Sequence[str]], colour: Callable[[str, str], str]) -> Figure | None:
    names = [*results.bias, *(name for name in ("perplexity",) if name in set(results.swept["metric"]))]
    if not names:
        return None
    drawn = False
    figure, panels = _panels(len(names), 3.8)
    for axes, metric in zip(panels, names, strict=True):
        for (target, reference), localization in ((pair, name) for pair in pairs for name in LINES):
            found = curve(results, target, reference, localization, metric)
            if len(found) < 4:
                continue
            drawn = True
            name = f"{target} → {reference}, {localization}"
            _line(axes, found["alpha"], found, colour(target, reference), LINES[localization], name)
        axes.axvline(0, color="black", linewidth=0.5)
    return _finish(figure, panels, names, "α (0: unedited)") if drawn else None


def strength(results: Results) -> Figure | None:
    """Bias and perplexity over α, both directions and localisations (figure 6)."""
    return _curves(results, BOTH_WAYS, lambda target, _: COLOURS[target])


def neutral(results: Results) -> Figure | None:
    """The neutral target under either reference (figure 7); here the colour is the reference's."""
    pairs = [[NEUTRAL, STEREOTYPICAL], [NEUTRAL, ANTI_STEREOTYPICAL]]
    return _curves(results, pairs, lambda _, reference: COLOURS[reference])
