"""The page about an experiment with features, and its figures: gap against perplexity, and answers by occupation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from lce.evaluation.site_edits import ABOUT_JOBS, HELD_OUT
from lce.foundations.atomic_files import replaced_file
from lce.foundations.figures import as_svg, save
from lce.foundations.labels import interval_text, label, number_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, CURVE, OCCUPATIONS = "report.html", "curve.png", "occupations.png"
CONTROLS = ("random", "matched")


def write_feature_report(folder: Path, result: dict[str, Any]) -> None:
    """Write the page and the figures into ``folder``."""
    environment = Environment(
        loader=PackageLoader("lce.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    kept = next(row for row in result["edits"] if row["patch"] == result["patch"])
    cost = [
        (label(name), number_text(score["value"]), number_text(kept["scores"].get(name, {}).get("value")))
        for name, score in result["before"].items()
        if name not in ABOUT_JOBS
    ]
    figures = {"curve": (curve(result), CURVE)}
    if result["occupations"]:
        figures["answers"] = answers(result), OCCUPATIONS
    for figure, name in figures.values():
        save(figure, folder / name)
    page = environment.get_template("feature_report.html").render(
        result=result,
        cells=_cells,
        cost=cost,
        prompts=list(dict.fromkeys(row["prompt"] for row in result["occupations"])),
        **{name: as_svg(figure) for name, (figure, _) in figures.items()},
    )
    with replaced_file(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _cells(scores: dict[str, Any], closed: dict[str, Any] | None, change: float | None) -> Markup:
    """The cells of a row behind its name: gap, interval, share closed, P(he) and P(she), perplexity."""
    gap = scores[HELD_OUT]
    sides = [(gap["male_dominated"][f"p_{word}"] + gap["female_dominated"][f"p_{word}"]) / 2 for word in ("he", "she")]
    perplexity = scores.get("perplexity", {}).get("value")
    texts = [
        f"{gap['value']:z.2f}",
        interval_text(gap["interval"]),
        "" if closed is None else f"{closed['value']:z.0%}",
        *(f"{side:.3f}" for side in sides),
        number_text(perplexity) + ("" if change is None else f" ({change:+.1f} %)"),
    ]
    return Markup("".join(f"<td>{escape(text)}</td>" for text in texts))


def curve(result: dict[str, Any]) -> Figure:
    """Gap against perplexity: a line for each kind of edit over its strengths, random features as points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    gap = result["before"][HELD_OUT]["value"]
    axes.axhline(gap, color="tab:red", linewidth=1, label="unedited")
    axes.axhline(0, color="black", linewidth=0.6)
    rows = [row for row in result["edits"] if row["perplexity_change"] is not None]
    for number, name in enumerate(dict.fromkeys(row["name"] for row in rows)):
        points = sorted((row for row in rows if row["name"] == name), key=lambda row: row["perplexity_change"])
        places = [(row["perplexity_change"], row["scores"][HELD_OUT]["value"]) for row in points]
        is_control = name.split()[0] in CONTROLS
        what = "α" if name.startswith("direction") else "s"
        title = name.rpartition(" ")[0] + " features" if is_control else name
        axes.plot(
            *zip(*places, strict=True), "s:" if is_control else "o-", label=title,
            color=("tab:gray", "silver")[name.startswith("matched")] if is_control else f"C{number}",
        )  # fmt: skip
        for row, place in zip(points, places, strict=True):
            if not is_control:
                text = f"{what} = {row['strength']:g}"
                axes.annotate(text, place, textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set_xlabel("change of the perplexity [%]")
    axes.set_ylabel("gap, held-out occupations and sentences [nats]")
    axes.legend(fontsize=8)
    return figure


def answers(result: dict[str, Any]) -> Figure:
    """P(Male) less P(Female) of every occupation before and after the edit that is kept, a panel a prompt."""
    from matplotlib.figure import Figure

    prompts = list(dict.fromkeys(row["prompt"] for row in result["occupations"]))
    figure = Figure(figsize=(5.2 * len(prompts), 7.5), layout="constrained")
    for axes, prompt in zip(figure.subplots(1, len(prompts), squeeze=False, sharey=True)[0], prompts, strict=True):
        rows = sorted((row for row in result["occupations"] if row["prompt"] == prompt), key=lambda row: row["women"])
        before, after = (
            [100 * (row[f"male_{when}"] - row[f"female_{when}"]) for row in rows] for when in ("before", "after")
        )
        places = range(len(rows))
        axes.hlines(places, before, after, color="silver", linewidth=1)
        axes.plot(before, places, "o", color="tab:red", markersize=4, label="unedited")
        axes.plot(after, places, "o", color="tab:blue", markersize=4, label="edited")
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(places, [f"{row['occupation']} ({row['women']:g} %)" for row in rows], fontsize=7)
        axes.set_xlabel("P(Male) − P(Female) [percentage points]")
        axes.set_title(prompt, fontsize=10)
        axes.legend(fontsize=8)
    return figure
