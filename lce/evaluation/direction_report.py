"""The page about an audit of directions, and its figures: curves over depth, and maps over pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader

from lce.evaluation.direction_audit import DirectionAudit
from lce.evaluation.direction_trials import Seen
from lce.evaluation.leaning_curves import NEUTRAL, WITHOUT_PEOPLE
from lce.foundations.atomic_files import replaced_file
from lce.foundations.figures import as_svg, save
from lce.foundations.labels import interval_text, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = "report.html"
COLOURS = ("tab:orange", "tab:purple", "tab:green", "tab:gray")
"""Of the first group, the second, pictures of neither, and pictures without people."""
MOST_MAPS = 8
"""Pictures that maps are drawn over."""
MAPPED_LAYERS = 5
"""Layers that maps are drawn of: the chosen one, and others evenly over the depth."""


def write_direction_report(folder: Path, result: dict[str, Any], audit: DirectionAudit, before: Seen) -> None:
    """Write the page and the figures into ``folder``."""
    environment = Environment(
        loader=PackageLoader("lce.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    figures = {"curves": curves(result), "separation": separations(result), "moves": moves(result)}
    shown = _mapped(audit, before)
    if mapped := [number for number in shown if before.leaning.grids[number]]:
        figures["maps"] = maps(result, audit, before, mapped)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
    credit = Path(result["pictures"]) / "CREDIT.txt"
    page = environment.get_template("direction_report.html").render(
        result=result,
        number=number_text,
        interval=interval_text,
        described=[
            {"name": audit.shown.pictures[i].name, "described": before.described[i], "guessed": before.guessed[i]}
            for i in shown
        ],
        named_edits=[(f"{row['edit']} edit", row) for row in result["edits"]],
        credit=credit.read_text(encoding="utf-8") if credit.is_file() else "",
        **{name: as_svg(figure) for name, figure in figures.items()},
    )
    with replaced_file(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")


def curves(result: dict[str, Any]) -> Figure:
    """LALS over depth: as it is, and, where there are pictures without people, less that of these."""
    from matplotlib.figure import Figure

    names = list(result["layers"][0]["curves"])
    is_compared = WITHOUT_PEOPLE in names
    figure = Figure(figsize=(5.2 * (1 + is_compared), 3.6), layout="constrained")
    panels = figure.subplots(1, 1 + is_compared, sharey=True, squeeze=False)[0]
    for axes, less in zip(panels, (False, True), strict=False):
        for name, colour in zip(names, _colours(names), strict=True):
            if less and name == WITHOUT_PEOPLE:
                continue
            _curve(axes, result, name, colour, less)
        _depth(axes, result, "LALS" + (f", less that of pictures {WITHOUT_PEOPLE}" if less else ""))
        axes.axhspan(-NEUTRAL, NEUTRAL, color="black", alpha=0.06, linewidth=0)
        axes.legend(fontsize=7)
    one, other = result["groups"]
    panels[0].set_title(f"1: all of the nearest texts are about {one}, −1: about {other}", fontsize=8)
    return figure


def _colours(names: Sequence[str]) -> list[str]:
    """The groups' own colours come first; that of pictures without people is the last one."""
    return [COLOURS[-1] if name == WITHOUT_PEOPLE else COLOURS[number] for number, name in enumerate(names)]


def _curve(axes: Axes, result: dict[str, Any], name: str, colour: str, less: bool) -> None:
    level = np.array([row["curves"][WITHOUT_PEOPLE]["value"] if less else 0.0 for row in result["layers"]])
    rows = [row["curves"][name] for row in result["layers"]]
    layers = [row["layer"] + 1 for row in result["layers"]]
    low, high = np.array([row["interval"] for row in rows]).T - level
    values = np.array([row["value"] for row in rows]) - level
    what = name if name == WITHOUT_PEOPLE else f"of {name}"
    axes.plot(layers, values, color=colour, label=f"pictures {what} (n = {rows[0]['n']})")
    axes.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)


def _depth(axes: Axes, result: dict[str, Any], title: str) -> None:
    """An axis of layers, on which the chosen one is marked."""
    axes.axvline(result["layer"] + 1, color="black", linestyle=":", linewidth=1)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_xlabel("layer (dotted: the chosen one)")
    axes.set_ylabel(title)


def separations(result: dict[str, Any]) -> Figure:
    """How well the groups are told apart by LALS, by a supervised probe, and by LALS with shuffled labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    rows = result["layers"]
    layers = [row["layer"] + 1 for row in rows]
    _with_band(axes, layers, [row["measured"] for row in rows], "tab:blue", "LALS")
    if all("probe" in row for row in rows):
        _with_band(axes, layers, [row["probe"] for row in rows], "tab:green", "supervised probe, other classes")
    if rows[0]["shuffled"]["n"]:
        chance = [{**row["shuffled"], "value": row["shuffled"]["mean"]} for row in rows]
        _with_band(axes, layers, chance, "tab:gray", f"LALS, {rows[0]['shuffled']['n']} shuffles of the labels")
    _depth(axes, result, f"area under the curve, {' against '.join(result['groups'])}")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7)
    return figure


def _with_band(axes: Axes, layers: list[int], rows: list[dict[str, Any]], colour: str, label: str) -> None:
    axes.plot(layers, [row["value"] for row in rows], color=colour, label=label)
    if all(row["interval"] for row in rows):
        low, high = zip(*(row["interval"] for row in rows), strict=True)
        axes.fill_between(layers, low, high, color=colour, alpha=0.2, linewidth=0)


def moves(result: dict[str, Any]) -> Figure:
    """How far the answers move when the direction of each layer is edited there, and under random directions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    here = {**result["edits"][0], "layer": result["layer"]}
    rows = sorted([*result["elsewhere"], here], key=lambda row: row["layer"])
    moved = [row["moved"] for row in rows]
    values = np.array([row["value"] for row in moved])
    ends = np.abs(np.array([row["interval"] or (row["value"],) * 2 for row in moved]).T - values)
    layers = [row["layer"] + 1 for row in rows]
    axes.errorbar(layers, values, ends, fmt="o", markersize=3, color="tab:blue", label="its direction, in each layer")
    if result["random"]:
        drawn = [row["moved"]["value"] for row in result["random"]]
        place = [result["layer"] + 1] * len(drawn)
        axes.plot(place, drawn, "_", color="tab:gray", label=f"{len(drawn)} random directions, in the chosen layer")
        drawn = [row["scaled"]["moved"]["value"] for row in result["random"]]
        axes.plot(place, drawn, "_", color="tab:olive", label="the same, changing states as much as the edit")
    one, other = result["groups"]
    _depth(axes, result, f"change of log P({one}) − log P({other})")
    axes.set_title(f"answers about {result['ambiguous']}, {result['edits'][0]['edit']} edit", fontsize=9)
    axes.legend(fontsize=7)
    return figure


def _mapped(audit: DirectionAudit, before: Seen) -> list[int]:
    """The ambiguous pictures that lean most in the chosen layer, half of them to each side."""
    scores = before.leaning.scores[audit.layer].numpy()
    order = [int(i) for i in np.argsort(-scores) if audit.ambiguous[i]]
    half = min(MOST_MAPS, len(order)) // 2
    return [*order[:half], *order[len(order) - half :]] or order


def maps(result: dict[str, Any], audit: DirectionAudit, before: Seen, chosen: Sequence[int]) -> Figure:
    """LALS of each visual token of some pictures, drawn over them, in some layers."""
    from matplotlib.figure import Figure

    depth = len(result["layers"])
    spread = {round(share * (depth - 1)) for share in np.linspace(0.1, 1, MAPPED_LAYERS - 1)}
    layers = sorted({*spread, result["layer"]})
    figure = Figure(figsize=(1.5 * (len(layers) + 1) + 0.8, 1.65 * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), len(layers) + 1, squeeze=False)
    for row, number in zip(panels, chosen, strict=True):
        picture = audit.shown.openers[number]().convert("L")
        rows, columns = before.leaning.grids[number] or (0, 0)
        tokens = before.leaning.maps[number][:, : rows * columns].reshape(depth, rows, columns)
        row[0].imshow(audit.shown.openers[number]())
        row[0].set_ylabel(audit.shown.pictures[number].name[:24], fontsize=7)
        for axes, layer in zip(row[1:], layers, strict=True):
            area = (0, picture.width, picture.height, 0)
            axes.imshow(picture, cmap="gray")
            image = axes.imshow(tokens[layer].numpy(), cmap="PuOr_r", vmin=-1, vmax=1, alpha=0.6, extent=area)
            axes.set_title(f"layer {layer + 1}: {before.leaning.scores[layer, number]:.2f}", fontsize=7)
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
    one, other = result["groups"]
    figure.colorbar(image, ax=panels, shrink=0.5, label=f"LALS (1: {one}, −1: {other})")
    return figure
