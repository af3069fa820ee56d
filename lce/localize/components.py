"""Layers and components of a model, told from the names of its parameters."""

import re
from collections.abc import Iterable, Mapping
from math import prod

Cells = dict[tuple[int | None, str], tuple[int, int]]
"""(layer or None, component) → (selected weights, weights)."""


def cells(counts: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> Cells:
    """The ``counts`` of weights, and all weights, summed over each component of each layer."""
    summed: Cells = {}
    for name, cell in layers_and_components(shapes).items():
        selected, total = summed.get(cell, (0, 0))
        summed[cell] = (selected + counts[name], total + prod(shapes[name]))
    return summed


def by_component(counts: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, float]]:
    """Component → the ``counts`` of units in it and their share of all its units, summed over layers."""
    totals: dict[str, tuple[int, int]] = {}
    for (_, component), (selected, total) in cells(counts, shapes).items():
        before = totals.get(component, (0, 0))
        totals[component] = (before[0] + selected, before[1] + total)
    return {name: {"count": n, "share": n / total} for name, (n, total) in totals.items()}


def layers_of(cells: Cells) -> list[int | None]:
    """The layers in order, then None if there is anything outside of them."""
    layers = {layer for layer, _ in cells}
    return [*sorted(layer for layer in layers if layer is not None), *([None] if None in layers else [])]


def components_of(cells: Cells) -> list[str]:
    """The components in order of first appearance."""
    return list(dict.fromkeys(component for _, component in cells))


def layer_text(layer: int | None) -> str:
    """How people number a layer."""
    return "–" if layer is None else str(layer + 1)


def layers_and_components(names: Iterable[str]) -> dict[str, tuple[int | None, str]]:
    """Layer (None outside of the layers) and component of each parameter, whatever the architecture.

    …layer.3.attention.output.dense.weight is (3, attention.output.dense). Where a model has several stacks of layers,
    their names come first: (0, decoder: SelfAttention.q). Numbers within a layer, such as an expert's, become a star.
    """
    found = {name: re.match(r"(?:(.*?)\.)?(\d{1,9})\.(.+?)(?:\.weight)?$", name) for name in names}
    stacks = sorted({match[1] or "" for match in found.values() if match})
    common = len(_common_prefix([stack.split(".") for stack in stacks]))
    places: dict[str, tuple[int | None, str]] = {}
    for name, match in found.items():
        if not match:
            places[name] = (None, name.removesuffix(".weight"))
            continue
        component = re.sub(r"(?<![^.])\d+(?![^.])", "*", match[3])
        stack = (match[1] or "").split(".")[common:]
        places[name] = (int(match[2]), f"{stack[0]}: {component}" if len(stacks) > 1 and stack else component)
    return places


def _common_prefix(paths: list[list[str]]) -> list[str]:
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return common
