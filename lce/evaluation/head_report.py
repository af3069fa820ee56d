"""The page about an audit of attention heads, and its figures: heat maps of all heads, and the null distribution."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader

from lce.data.pictures.views import view
from lce.evaluation.head_audit import HeadAudit
from lce.foundations.atomic_files import replaced_file
from lce.foundations.figures import as_svg, save
from lce.foundations.labels import interval_text, label, number_text
from lce.metrics.group_association import LEAN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, SCORES, SINGLES, NULL = "report.html", "scores.png", "singles.png", "null.png"
SIDE = 72
"""Width and height of pictures on the page [pixels]."""
MOST_NUMBERED = 200
"""Heads up to which a heat map says each number."""


def write_head_report(folder: Path, result: dict[str, Any], audit: HeadAudit) -> None:
    """Write the page and the figures into ``folder``."""
    environment = Environment(
        loader=PackageLoader("lce.evaluation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    figures = {"scores": (scores(result), SCORES)}
    if result["singles"]:
        figures["singles"] = lone_heads(result), SINGLES
    if result["random"]:
        figures["null"] = null(result), NULL
    for figure, name in figures.values():
        save(figure, folder / name)
    credit = Path(result["pictures"]) / "CREDIT.txt"
    page = environment.get_template("head_report.html").render(
        result=result,
        label=label,
        number=number_text,
        interval=interval_text,
        lean=LEAN,
        changed=_pictures(audit, result["changed"]),
        credit=credit.read_text(encoding="utf-8") if credit.is_file() else "",
        **{name: as_svg(figure) for name, (figure, _) in figures.items()},
    )
    with replaced_file(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")


def scores(result: dict[str, Any]) -> Figure:
    """Layer × head: the share of the concept's spread that each head writes."""
    values = {(row["layer"], row["head"]): row["score"] for row in result["heads"]}
    title = f"share of the spread of {result['attribute']} over pictures that a head writes"
    return _heat_map(values, result, title)


def lone_heads(result: dict[str, Any]) -> Figure:
    """Layer × head: the share of the lean that the mean-ablation of each head takes away."""
    rows = [row for row in result["singles"] if not row["is_first_order"]]
    values = {tuple(row["heads"][0]): row["reduced"][LEAN] for row in rows}
    return _heat_map(values, result, "share of the lean that the mean-ablation of one head takes away")


def _heat_map(values: dict[Any, float], result: dict[str, Any], title: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    layers, heads = (1 + max(place[i] for place in values) for i in (0, 1))
    cells = np.array([[values[layer, head] for head in range(heads)] for layer in range(layers)])
    figure = Figure(figsize=(2.4 + 0.62 * heads, 1.6 + 0.42 * layers), layout="constrained")
    axes = figure.subplots()
    limit = float(np.abs(cells).max()) or 1.0
    image = axes.imshow(cells, cmap="RdBu", aspect="auto", vmin=-limit, vmax=limit)
    axes.set_xticks(range(heads))
    axes.set_yticks(range(layers), [str(layer + 1) for layer in range(layers)])
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    for row in result["selected"]:
        axes.add_patch(Rectangle((row["head"] - 0.5, row["layer"] - 0.5), 1, 1, fill=False, linewidth=2))
    if cells.size <= MOST_NUMBERED:
        for (row, column), value in np.ndenumerate(cells):
            colour = "white" if abs(value) > 0.6 * limit else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(image)
    axes.set_title(f"{title}\n(framed: the selected heads)", fontsize=9)
    return figure


def null(result: dict[str, Any]) -> Figure:
    """The lean that random sets of the same layers leave, with that of the selected heads and of the unedited model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axes = figure.subplots()
    kept = result["edits"][0]
    for is_first_order, colour in ((False, "tab:gray"), (True, "tab:olive")):
        values = [row["values"][LEAN] for row in result["random"] if row["is_first_order"] == is_first_order]
        how = "first-order" if is_first_order else "true"
        axes.hist(values, bins=30, alpha=0.6, color=colour, label=f"{len(values)} random sets, {how}")
    axes.axvline(kept["scores"][LEAN]["value"], color="tab:blue", label=f"selected heads, {kept['edit']}, true")
    axes.axvline(
        result["edits"][1]["scores"][LEAN]["value"], color="tab:cyan", linestyle=":", label="the same, first-order"
    )
    axes.axvline(result["before"]["scores"][LEAN]["value"], color="tab:red", label="unedited")
    axes.set_xlabel("lean")
    axes.set_ylabel("sets")
    axes.legend(fontsize=7)
    return figure


def _pictures(audit: HeadAudit, changed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pictures of ``changed`` as data for the page, with what they show."""
    found = []
    for row in changed:
        picture = audit.pictures.pictures[row["picture"]]
        image = view(picture, row["view"], audit.settings.seed)
        image.thumbnail((SIDE, SIDE))
        data = BytesIO()
        image.save(data, "PNG")
        source = f"data:image/png;base64,{b64encode(data.getvalue()).decode()}"
        found.append({**row, "source": source, "shows": picture.subject})
    return found
