"""Pictures: where the selected weights sit, and how the scores move with α."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lce.foundations.atomic_files import replaced_file
from lce.foundations.overwriting import PICTURE_MARK
from lce.localize.selection import Cells, Selection, components_of, layer_text, layers_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_heat_map(selection: Selection, path: Path) -> None:
    """Draw where the weights of ``selection`` sit."""
    title = f"{selection.localization}-based: {selection.count:,} weights, {selection.share:.2%} of all"
    save(heat_map(selection.by_layer_and_component(), title), path)


MOST_LAYERS, MOST_COMPONENTS, MOST_NUMBERS = 200, 40, 1500
"""Of what a heat map shows: beyond the last, cells go without their number."""


def heat_map(cells: Cells, title: str) -> Figure:
    """Layer × component, each cell the share of its weights that is selected [%]; the last row is outside of layers."""
    from matplotlib.figure import Figure

    layers = layers_of(cells)[:MOST_LAYERS]
    every = components_of(cells)
    most = Counter[str]()
    for (_, component), (selected, _) in cells.items():
        most[component] += selected
    shown = {component for component, _ in most.most_common(MOST_COMPONENTS)}
    components = [component for component in every if component in shown]
    if len(components) < len(every):
        title += f" (the {MOST_COMPONENTS} of {len(every)} components with most of them)"
    shares = [
        [
            100 * cells[layer, name][0] / cells[layer, name][1] if (layer, name) in cells else float("nan")
            for name in components
        ]
        for layer in layers
    ]
    figure = Figure(figsize=(2.2 + 1.15 * len(components), 1.8 + 0.45 * len(layers)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", aspect="auto", vmin=0)
    axes.set_xticks(range(len(components)), [re.sub(r"[.:] ?", r"\g<0>\n", c, count=1) for c in components], fontsize=8)
    axes.set_yticks(range(len(layers)), [layer_text(layer) for layer in layers])
    axes.set_ylabel("layer")
    brightest = max((share for row in shares for share in row if share == share), default=0)
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            colour = "white" if value > 0.6 * brightest else "black"
            if value != value or len(layers) * len(components) > MOST_NUMBERS:
                continue
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, label="selected [% of weights]")
    axes.set_title(title, fontsize=10)
    return figure


CURVES = {
    "weat8": "WEAT 8 effect size",
    "crows_pairs": "CrowS-Pairs [%]",
    "stereoset_ss": "StereoSet SS [%]",
    "perplexity": "perplexity",
}


def alpha_curves(edits: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a score: the edited target over α with its interval, the uninformed edits, target and reference."""
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
            label="uninformed",
        )
        axes.axhline(scores[0]["before"], color="tab:red", linewidth=1, label="target")
        axes.axhline(scores[0]["reference"], color="tab:green", linewidth=1, label="reference")
        axes.set_xlabel("α")
        axes.set_title(label, fontsize=10)
    panels[0].legend(fontsize=8)
    save(figure, path)


def as_svg(figure: Figure) -> str:
    """The figure as an element of an HTML page."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that ``path`` ends in, .png or .svg."""
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": PICTURE_MARK}
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
