"""Random baselines (the paper's uninformed localisation): as many units, from the same population, by chance."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lce.foundations.seeds import generator
from lce.localize.selection import Selection
from lce.storage.top_k import smallest


def random_baseline(
    selection: Selection, population: Mapping[str, Tensor], seed: int, is_matched: bool = False
) -> Selection:
    """As many units as ``selection`` has, drawn at random: the control for what an edit of it does.

    Args:
        population: by site, which units may be drawn (bool, the site's shape).
        is_matched: draw from each site as many as ``selection`` has there, so that only the choice within a component
            of a layer is left to chance.

    Raises:
        LceError: there are fewer units to draw from than were selected.
    """
    random = generator(seed, "uninformed", selection.localization)
    drawn = {name: torch.rand(allowed.shape, generator=random) for name, allowed in population.items()}
    groups = [[name] for name in drawn] if is_matched else [list(drawn)]
    marks: dict[str, Tensor] = {}
    for names in groups:
        count = sum(selection.counts[name] for name in names)
        marks |= smallest({name: drawn[name] for name in names}, count, {name: population[name] for name in names})
    indices = {name: mark.flatten().nonzero().flatten() for name, mark in marks.items()}
    kind = "matched" if is_matched else "uninformed"
    return replace(selection, indices=indices, localization=f"{kind}-{selection.localization}")
