"""The patch between two models of any size, each a checkpoint or in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lce.foundations.errors import LceError
from lce.patch.format import Patch
from lce.patch.readers import opened
from lce.patch.record import PATCHABLE, Parameter
from lce.patch.writer import Made, write_patch
from lce.storage.arrays import CHUNK, Array, as_bytes, bits, digest, hasher
from lce.storage.changes import Change
from lce.storage.checkpoint import Readable, common_tensors

if TYPE_CHECKING:
    from torch import nn


def patch_between(
    base: str | Path | nn.Module,
    edited: str | Path | nn.Module,
    path: str | Path,
    keep_old: bool = True,
    skip_unmatched: bool = False,
) -> Patch:
    """Write to ``path`` the patch that turns ``base`` into ``edited``: every weight whose bits differ.

    Args:
        base, edited: folders, names on the Hugging Face hub, or models in memory.
        keep_old: with the values of ``base``, so that the patch can be reverted.
        skip_unmatched: leave out tensors that only one of the two has, instead of refusing.

    Raises:
        LceError: the two have other tensors, shapes or dtypes, or do not differ.
    """
    before, after = opened(base), opened(edited)
    names = common_tensors(before, after, lambda name, entry: True, skip_unmatched)
    for name, counterpart in names.items():
        if (one := before.entries[name].code) != (other := after.entries[counterpart].code):
            raise LceError(f"{name}: is {one} in {before.title}, {other} in {after.title}; a patch keeps the type")

    def made(name: str) -> Made | None:
        old = before.entries[name]
        found = _difference(old, after.entries[names[name]])
        if found is None:
            return None
        if old.code not in PATCHABLE:
            raise LceError(f"{name}: differs, but a patch cannot hold weights of type {old.code}")
        change, sha256, sha256_after = found
        return Made(change, Parameter(old.shape, old.code, len(change.indices), sha256, sha256_after), True)

    return write_patch(
        path,
        made,
        {name: before.entries[name].nbytes for name in names},
        {"target": before.title, "edited": after.title},
        keep_old,
        refuse_if_void=f"{before.title} and {after.title}: have the same weights; there is nothing to put in a patch",
    )


def _difference(old: Readable, new: Readable) -> tuple[Change[Array], str, str] | None:
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
    return Change(np.concatenate(indices), np.concatenate(after), old.shape, np.concatenate(before)), *digests
