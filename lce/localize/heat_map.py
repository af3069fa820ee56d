"""A selection drawn: the share of the weights selected in each component of each layer."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from lce.foundations.figures import save
from lce.localize.components import Cells, components_of, layer_text, layers_of
from lce.localize.selection import Selection

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_heat_map(selection: Selection, path: Path) -> None:
    """Draw where the weights of ``selection`` sit."""
    title = f"{selection.localization}-based: {selection.count:,} weights, {100 * selection.share:.3g}% of all"
    save(heat_map(selection.by_layer_and_component(), title), path)


MOST_LAYERS, MOST_COMPONENTS, MOST_NUMBERS = 200, 40, 1500
"""Of what a heat map shows: beyond the last, cells go without their number."""


def heat_map(cells: Cells, title: str) -> Figure:
    """Layer × component, each cell the share of its weights that is selected [%]; the last row is outside of layers.

    Where all shares are below 1 %, the cells say how many weights are selected in them.
    """
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
    is_sparse, are_numbered = brightest < 1, len(layers) * len(components) <= MOST_NUMBERS
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            colour = "white" if value > 0.6 * brightest else "black"
            if value != value or not are_numbered:
                continue
            text = f"{cells[layers[row], components[column]][0]:,}" if is_sparse else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    note = "; in the cells, their number" if is_sparse and are_numbered else ""
    figure.colorbar(image, label=f"selected [% of weights]{note}")
    axes.set_title(title, fontsize=10)
    return figure
