"""Random sets of attention heads, matched by layer: what a selection of heads is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from math import comb, prod

import torch

from lce.foundations.seeds import derive
from lce.localize.controls import random_baseline
from lce.localize.head_units import Head, HeadUnits
from lce.localize.selection import Selection


def random_sets(units: HeadUnits, chosen: Selection, count: int, seed: int) -> list[Selection]:
    """``count`` different random sets with as many heads of each layer as ``chosen``, which is not among them.

    Where there are not so many sets, all there are.
    """
    own = tuple(units.heads_of(chosen))
    heads = units.tower.heads
    possible = prod(comb(heads, number) for number in chosen.counts.values()) - 1
    if possible <= count:
        return [selection for selection in _every(units, chosen) if tuple(units.heads_of(selection)) != own]
    population = {site: torch.ones(shape, dtype=torch.bool) for site, shape in units.shapes.items()}
    found: dict[tuple[Head, ...], Selection] = {}
    draw = 0
    while len(found) < count:
        selection = random_baseline(chosen, population, derive(seed, draw), is_matched=True)
        draw += 1
        if (places := tuple(units.heads_of(selection))) != own:
            found.setdefault(places, selection)
    return list(found.values())


def _every(units: HeadUnits, chosen: Selection) -> Iterator[Selection]:
    """All sets with as many heads of each layer as ``chosen``."""
    layers = [layer for layer in range(len(units.tower.layers)) if chosen.counts[units.site(layer)]]
    parts = [combinations(range(units.tower.heads), chosen.counts[units.site(layer)]) for layer in layers]
    for heads in product(*parts):
        places = [(layer, head) for layer, found in zip(layers, heads, strict=True) for head in found]
        yield replace(chosen, indices=units.positions(places), localization=f"matched-{chosen.localization}")
