"""One self-contained HTML page about an evaluation: scores with intervals, the terms and layers behind them, tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader

from lce.foundations.atomic_files import replaced_file
from lce.foundations.figures import as_svg
from lce.foundations.labels import interval_text, label, number_text, p_text
from lce.metrics.items import ItemMetric
from lce.metrics.stereoset import StereoSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("tab:blue", "tab:orange")
BALANCED = {"stereoset_ss": 50, "crows_pairs": 50, "crows_pairs_original": 50}
SHOWN_TERMS = 60


def write_report(
    path: Path, result: dict[str, Any], metrics: Sequence[ItemMetric], others: Sequence[ItemMetric]
) -> None:
    """Write the page about ``result``; ``others`` are the metrics of the model compared with, if there is one."""
    environment = Environment(
        loader=PackageLoader("lce.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"label": label, "interval": interval_text, "number": number_text, "p": p_text}
    names = [result[key]["name"] for key in ("model", "against") if key in result]
    figures = [("Scores and their 95 % intervals", _intervals(result, names))]
    sides = [metrics, others] if others else [metrics]
    if layers := _layers(result, names):
        figures.append(("Association by layer", layers))
    stereosets = [metric for side in sides for metric in side if isinstance(metric, StereoSet)]
    if terms := _terms(stereosets, names):
        many = len(stereosets[0].per_term()) > SHOWN_TERMS
        shown = f" (the {SHOWN_TERMS} with most examples)" if many else ""
        figures.append((f"StereoSet by target term{shown}", terms))
    drawn = [(title, as_svg(figure)) for title, figure in figures]
    page = environment.get_template("report.html").render(result=result, figures=drawn)
    with replaced_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _intervals(result: dict[str, Any], names: Sequence[str]) -> Figure:
    """A panel each for scores in percent, effect sizes, differences of pronouns, and perplexities."""
    from matplotlib.figure import Figure

    scores = result["scores"]
    associations = [name for name in scores if "layers" in scores[name]]
    pronouns = [name for name in scores if "male_dominated" in scores[name]]
    perplexities = [name for name in scores if "sentences" in scores[name] and name not in pronouns]
    percents = [name for name in scores if name not in (*associations, *pronouns, *perplexities)]
    units = {"percent": percents, "effect size": associations, "nats": pronouns, "perplexity": perplexities}
    panels = [(unit, group) for unit, group in units.items() if group]
    rows = [len(group) for _, group in panels]
    figure = Figure(figsize=(7.5, 0.9 * len(panels) + 0.45 * sum(rows)), layout="constrained")
    drawn = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[n + 0.6 for n in rows])[:, 0]
    for axes, (title, group) in zip(drawn, panels, strict=True):
        for side, key in enumerate(("scores", "scores_against")[: len(names)]):
            shift = (side - (len(names) - 1) / 2) * 0.3
            _points(axes, [result[key][name] for name in group], shift, COLOURS[side], names[side])
        axes.set_yticks(range(len(group)), [label(name) for name in group])
        axes.invert_yaxis()
        axes.set_xlabel(title)
        for row, name in enumerate(group):
            if name in BALANCED or name in (*associations, *pronouns):
                balanced = BALANCED.get(name, 0)
                axes.plot([balanced, balanced], [row - 0.4, row + 0.4], color="black", linewidth=1, linestyle=":")
        axes.margins(y=0.25 if len(group) == 1 else 0.12)
    _legend(figure, drawn[0], names)
    return figure


def _legend(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    if len(names) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", fontsize=8)


def _points(axes: Axes, scores: Sequence[dict[str, Any]], shift: float, colour: str, name: str) -> None:
    values = [float("nan") if score["value"] is None else score["value"] for score in scores]
    ends = [score["interval"] or (v, v) for score, v in zip(scores, values, strict=True)]
    spans = [
        [max(0.0, v - low) for v, (low, _) in zip(values, ends, strict=True)],
        [max(0.0, high - v) for v, (_, high) in zip(values, ends, strict=True)],
    ]
    places = [row + shift for row in range(len(scores))]
    axes.errorbar(values, places, xerr=spans, fmt="o", color=colour, capsize=3, markersize=5, label=name)


def _layers(result: dict[str, Any], names: Sequence[str]) -> Figure | None:
    """Effect size over the layers, one panel a test that has several."""
    from matplotlib.figure import Figure

    tests = [name for name, score in result["scores"].items() if len(score.get("layers", ())) > 1]
    if not tests:
        return None
    figure = Figure(figsize=(min(10.0, 3.6 * len(tests)), 2.8 + 0.3 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(tests), squeeze=False)[0], tests, strict=True):
        for side, key in enumerate(("scores", "scores_against")[: len(names)]):
            layers = [float("nan") if size is None else size for size in result[key][name]["layers"]]
            axes.plot(range(1, len(layers) + 1), layers, "o-", color=COLOURS[side], label=names[side])
        axes.axhline(0, color="black", linewidth=1, linestyle=":")
        axes.set_xlabel("layer")
        axes.set_title(f"{label(name)} effect size", fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(figure, axes, names)
    return figure


def _terms(metrics: Sequence[StereoSet], names: Sequence[str]) -> Figure | None:
    """SS of each target term as bars from 50; the terms with most examples if there are many."""
    from matplotlib.figure import Figure

    if not metrics:
        return None
    sides = [metric.per_term() for metric in metrics]
    common = [term for term in sides[0] if all(term in side for side in sides)]
    shown = sorted(common, key=lambda term: -sides[0][term][1])[:SHOWN_TERMS]
    shown.sort(key=lambda term: sides[0][term][0])
    figure = Figure(figsize=(7.5, 1.2 + 0.22 * len(shown) * len(sides) ** 0.5), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(sides)
    for side, terms in enumerate(sides):
        places = [row + (side - (len(sides) - 1) / 2) * height for row in range(len(shown))]
        axes.barh(places, [terms[t][0] - 50 for t in shown], height, left=50, color=COLOURS[side], label=names[side])
    axes.axvline(50, color="black", linewidth=1)
    axes.set_yticks(range(len(shown)), [f"{term} ({sides[0][term][1]})" for term in shown], fontsize=8)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlim(0, 100)
    axes.set_xlabel("stereotype score [%], examples in brackets")
    _legend(figure, axes, names)
    return figure
