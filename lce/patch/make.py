"""Making patches of checkpoints of any size: from two of them, or by editing one where it differs from another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch

from lce.checkpoint import Checkpoint, common_tensors, digest, resolve
from lce.edits import Change, changed_parameter, check_edit, nothing_changed
from lce.errors import LceError
from lce.patch.format import Patch, PatchWriter
from lce.patch.record import DTYPES, Parameter, described
from lce.selection import Selection
from lce.tensorfile import Entry, bits
from lce.weights import ModelWeights
from lce.workers import ordered

Made = tuple[Change, Parameter]


def patch_between(
    base: str | Path, edited: str | Path, path: str | Path, keep_old: bool = True, skip_unmatched: bool = False
) -> Patch:
    """Write to ``path`` the patch that turns the checkpoint ``base`` into ``edited``: every weight whose bits differ.

    Args:
        keep_old: with the values of ``base``, so that the patch can be reverted.
        skip_unmatched: leave out tensors that only one of the two has, instead of refusing.

    Raises:
        LceError: the two have other tensors, shapes or dtypes, or do not differ.
    """
    before, after = Checkpoint(resolve(base)), Checkpoint(resolve(edited))
    names = common_tensors(before, after, lambda name, entry: True, skip_unmatched)
    for name in names:
        if (one := before.entries[name].code) != (other := after.entries[name].code):
            raise LceError(f"{name}: is {one} in {base}, {other} in {edited}; a patch keeps the type")

    def made(name: str) -> Made | None:
        old, new = before.entries[name], after.entries[name]
        change = _difference(old, new)
        if change is None:
            return None
        if old.dtype not in DTYPES.values():
            raise LceError(f"{name}: differs, but a patch cannot hold weights of type {old.code}")
        digests = (digest(entry.pieces(), entry.dtype, entry.shape) for entry in (old, new))
        return change, described(change, *digests)

    sizes = {name: before.entries[name].nbytes for name in names}
    with PatchWriter(path, {"target": str(base), "edited": str(edited)}, keep_old) as writer:
        for name, found in _in_order(made, sizes):
            writer.add(name, *found)
        if not writer.parameters:
            raise LceError(f"{base} and {edited}: have the same weights; there is nothing to put in a patch")
    return Patch.open(path, allow_non_finite=True)


def _difference(old: Entry, new: Entry) -> Change | None:
    """The entries whose bits differ."""
    indices, before, after = [], [], []
    for (first, one), (_, other) in zip(old.pieces(), new.pieces(), strict=True):
        if not torch.equal(bits(one), bits(other)):
            where = (bits(one) != bits(other)).nonzero().flatten()
            indices.append(where + first)
            before.append(one[where])
            after.append(other[where])
    if not indices:
        return None
    return Change(torch.cat(indices), torch.cat(after), old.shape, torch.cat(before))


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
    """Write to ``path`` the patch that edits ``target`` at ``selection``; see `lce.edits`.

    Raises:
        LceError: strategy, selection and models do not fit, or no weight would change; nothing is written then.
    """
    check_edit(strategy, selection, target, reference)

    def made(name: str) -> Made | None:
        change = changed_parameter(strategy, name, selection, target, reference, alpha)
        if not len(change.indices):
            return None
        return change, described(change, target.digest(name), target.digest(name, change.indices, change.new))

    each = target.nbytes / selection.size
    sizes = {name: round(each * prod(shape)) for name, shape in selection.shapes.items() if selection.counts[name]}
    edited = {"localization": selection.localization, "strategy": strategy, "alpha": alpha}
    moves = False
    with PatchWriter(path, {**provenance, **edited}, keep_old, keep_full) as writer:
        for name, found in _in_order(made, sizes):
            writer.add(name, *found)
            moves = moves or found[0].moves
        if not moves:
            raise LceError(nothing_changed(strategy, alpha, target))
    return Patch.open(path)


def _in_order(made: Callable[[str], Made | None], sizes: Mapping[str, int]) -> Iterator[tuple[str, Made]]:
    """What is ``made`` of each parameter, without those of which nothing is; ``sizes`` are theirs in bytes."""
    for name, found in ordered(made, sizes, "Making the patch", sum(sizes.values()), sizes.__getitem__):
        if found is not None:
            yield name, found
