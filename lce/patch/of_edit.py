"""The patch of an edit of a checkpoint of any size, where it differs from another one."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from lce.edit.weight_edit import changed_parameter, check_edit, nothing_changed
from lce.foundations.errors import LceError
from lce.localize.selection import Selection
from lce.patch.between import Made, in_order
from lce.patch.format import Patch
from lce.patch.on_modules import described, stored
from lce.patch.writer import PatchWriter
from lce.storage.model_weights import ModelWeights


def patch_of_edit(
    path: str | Path,
    strategy: str,
    selection: Selection,
    target: ModelWeights,
    reference: ModelWeights,
    alpha: float,
    provenance: Mapping[str, Any],
    keep_old: bool = True,
    keep_full: bool = True,
) -> Patch:
    """Write to ``path`` the patch that edits ``target`` at ``selection``; see `lce.edit.weight_edit`.

    Raises:
        LceError: strategy, selection and models do not fit, or no weight would change; nothing is written then.
    """
    check_edit(strategy, selection, target, reference)
    moving: set[str] = set()

    def made(name: str) -> Made | None:
        change = changed_parameter(strategy, name, selection, target, reference, alpha)
        if not len(change.indices):
            return None
        if change.moves:
            moving.add(name)
        after = target.digest(name, change.indices, change.new)
        return stored(change), described(change, target.digest(name), after)

    each = target.nbytes / selection.size
    sizes = {name: round(each * prod(shape)) for name, shape in selection.shapes.items() if selection.counts[name]}
    edited = {"localization": selection.localization, "strategy": strategy, "alpha": alpha}
    with PatchWriter.to(path, {**provenance, **edited}, keep_old, keep_full) as writer:
        for name, found in in_order(made, sizes):
            writer.add(name, *found)
        if not moving:
            raise LceError(nothing_changed(strategy, alpha, target))
    return Patch.open(path)
