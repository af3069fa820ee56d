"""Random baselines: selections of the same size, from the same population."""

from __future__ import annotations

import torch
from torch import Tensor

from lce.foundations.seeds import generator
from lce.localize.selection import Selection
from lce.localize.weights import _selection
from lce.storage.in_memory import Subnetwork
from lce.storage.top_k import smallest


def uninformed(
    selection: Selection,
    target: Subnetwork,
    reference: Subnetwork,
    strategy: str,
    seed: int,
    is_matched: bool = False,
) -> Selection:
    """As many weights as ``selection`` has, drawn at random: the control for an edit by ``strategy``.

    Drawn from the weights kept in the target for pruning, else from all that are not pruned in both; if it
    ``is_matched``, from each parameter as many as ``selection`` has there, so that only the choice within a component
    of a layer is left to chance.

    Raises:
        LceError: there are fewer weights to draw from than were selected.
    """
    candidates = {
        name: kept if strategy == "pruning" else kept | reference.mask.kept[name]
        for name, kept in target.mask.kept.items()
    }
    random = generator(seed, "uninformed", selection.localization)
    draws = {name: torch.rand(kept.shape, generator=random) for name, kept in candidates.items()}
    groups = [[name] for name in draws] if is_matched else [list(draws)]
    marks: dict[str, Tensor] = {}
    for names in groups:
        count = sum(selection.counts[name] for name in names)
        marks |= smallest({name: draws[name] for name in names}, count, {name: candidates[name] for name in names})
    found = ((name, mark.flatten().nonzero().flatten()) for name, mark in marks.items())
    kind = "matched" if is_matched else "uninformed"
    return _selection(found, target, reference, f"{kind}-{selection.localization}")
