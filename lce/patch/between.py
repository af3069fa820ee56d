"""The patch between two checkpoints of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lce.foundations.errors import LceError
from lce.foundations.threads import by_tensor, ordered
from lce.patch.format import Patch
from lce.patch.record import CODES, Parameter, RawChange
from lce.patch.writer import PatchWriter
from lce.storage.arrays import CHUNK, as_bytes, bits
from lce.storage.checkpoint import Checkpoint, common_tensors
from lce.storage.digests import digest, hasher
from lce.storage.hub import resolve
from lce.storage.safetensors_file import Entry

Made = tuple[RawChange, Parameter]


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
    for name, counterpart in names.items():
        if (one := before.entries[name].code) != (other := after.entries[counterpart].code):
            raise LceError(f"{name}: is {one} in {base}, {other} in {edited}; a patch keeps the type")

    def made(name: str) -> Made | None:
        old = before.entries[name]
        found = _difference(old, after.entries[names[name]])
        if found is None:
            return None
        if old.code not in CODES:
            raise LceError(f"{name}: differs, but a patch cannot hold weights of type {old.code}")
        change, sha256, sha256_after = found
        return change, Parameter(old.shape, old.code, len(change.indices), sha256, sha256_after)

    sizes = {name: before.entries[name].nbytes for name in names}
    with PatchWriter.to(path, {"target": str(base), "edited": str(edited)}, keep_old) as writer:
        for name, found in in_order(made, sizes):
            writer.add(name, *found)
        if not writer.parameters:
            raise LceError(f"{base} and {edited}: have the same weights; there is nothing to put in a patch")
    return Patch.open(path, allow_non_finite=True)


def _difference(old: Entry, new: Entry) -> tuple[RawChange, str, str] | None:
    """The entries whose bits differ, and the digests of both tensors."""
    indices, before, after = [], [], []
    hashers = [hasher(entry.code, entry.shape) for entry in (old, new)]
    for (first, one), (_, other) in zip(old.chunks(), new.chunks(), strict=True):
        where = np.flatnonzero(bits(one) != bits(other))
        if len(where):
            before.append(one[where])
            after.append(other[where])
            where += first
            indices.append(where)
        if indices:
            hashers[0].update(as_bytes(one))
            hashers[1].update(as_bytes(other))
    if not indices:
        return None
    digests = [found.hexdigest() for found in hashers]
    if indices[0][0] >= CHUNK:  # what came before the first difference was not handed in
        digests = [digest(entry.chunks(), entry.code, entry.shape) for entry in (old, new)]
    return RawChange(*map(np.concatenate, (indices, after, before))), digests[0], digests[1]


def in_order(made: Callable[[str], Made | None], sizes: dict[str, int]) -> Iterator[tuple[str, Made]]:
    """What is ``made`` of each parameter, without those of which nothing is; ``sizes`` are in bytes."""
    for name, found in ordered(made, sizes, by_tensor("Making the patch", sizes)):
        if found is not None:
            yield name, found
