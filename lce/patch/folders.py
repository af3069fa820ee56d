"""Patches between and onto checkpoint folders, piece by piece, without instantiating a model."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lce.checkpoint import Checkpoint, aligned, digest, put_, resolve, within
from lce.errors import LceError
from lce.files import new_folder
from lce.patch.card import stack_card, unstack_card
from lce.patch.format import Patch, same_bits
from lce.patch.record import RawChange
from lce.paths import SUBNETWORK
from lce.tensorfile import PIECE, Array, Entry, as_bytes
from lce.workers import Progress, by_tensor, ordered

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".ot"}
"""Files of weights beside the configuration: rewritten, or left behind because they would be out of date."""


def apply_patch(model: str | Path, patch: Patch, output: str | Path) -> None:
    """Write to ``output`` a copy of the checkpoint ``model`` with ``patch`` applied, and a model card that says so.

    Raises:
        LceError: ``model`` is not the patch's base, or ``output`` exists; nothing is written then.
    """
    checkpoint = Checkpoint(resolve(model))
    for name, before, _, found in _examined(checkpoint, patch):
        old = patch.changes[name].old
        if before != patch.parameters[name].sha256 or not (old is None or same_bits(found, old)):
            raise LceError(f"{model}: {patch.not_the_base(name, found)}")
    write_patched(checkpoint, patch, output, str(model))


def write_patched(checkpoint: Checkpoint, patch: Patch, output: str | Path, base: str) -> None:
    """As `apply_patch`, where ``checkpoint`` is known to be the base."""
    with _output(checkpoint, output) as temporary:
        _write(checkpoint, patch, "new", temporary)
        stack_card(temporary, patch, base)


def revert_patch(model: str | Path, patch: Patch, output: str | Path) -> None:
    """Write to ``output`` a copy of the patched checkpoint ``model`` with ``patch`` taken back: the base, bit for bit.

    Raises:
        LceError: ``model`` is not the base with this patch applied, the patch has no old values, or ``output`` exists;
            nothing is written then.
    """
    patch.check_revertible()
    checkpoint = Checkpoint(resolve(model))
    for name, _, restored, found in _examined(checkpoint, patch):
        if restored != patch.parameters[name].sha256 or not same_bits(found, patch.changes[name].new):
            raise LceError(f"{model}: {patch.not_patched(name, found)}")
    with _output(checkpoint, output) as temporary:
        _write(checkpoint, patch, "old", temporary)
        unstack_card(temporary)


@contextmanager
def _output(checkpoint: Checkpoint, output: str | Path) -> Iterator[Path]:
    if Path(output).absolute().is_relative_to(checkpoint.folder.absolute()):
        raise LceError(f"{output}: lies inside of {checkpoint.folder}, which is copied to it; name a folder elsewhere")
    with new_folder(output) as temporary:
        yield temporary


def verify_patch(model: str | Path, patch: Patch) -> str:
    """Whether the checkpoint ``model`` is the ``patch``'s "base", or that base "patched".

    Raises:
        LceError: it is neither.
    """
    checkpoint = Checkpoint(resolve(model))
    states = set()
    for name, before, restored, found in _examined(checkpoint, patch):
        about, change = patch.parameters[name], patch.changes[name]
        is_base = before == about.sha256
        is_patched = same_bits(found, change.new) and (
            restored == about.sha256 if patch.has_old else before == about.sha256_after
        )
        if not is_base and not patch.has_old and about.sha256_after is None:
            raise LceError(f"{model}: is not the base; whether it has this patch cannot be told without old values")
        if not is_base and not is_patched:
            raise LceError(f"{model}: its {name} is neither the patch's base nor the base with the patch applied")
        if is_base != is_patched:  # both where the patch puts in what was there
            states.add("base" if is_base else "patched")
    if len(states) > 1:
        raise LceError(f"{model}: has the patch applied in some of its parameters only")
    return states.pop() if states else "base"


def _examined(checkpoint: Checkpoint, patch: Patch) -> Iterator[tuple[str, str, str, Array]]:
    """Per parameter: its name, its digest, its digest with the old values put back, and its values at the changes."""
    checkpoint.untie(patch.parameters)
    names = {patched: name for name, patched in aligned(checkpoint.entries, patch.parameters).items()}
    entries = {name: checkpoint.entries[names[name]] for name in patch.parameters if name in names}
    for name in patch.parameters:
        entry = entries.get(name)
        try:
            patch.check_parameter(name, None if entry is None else (entry.shape, entry.code))
        except LceError as error:
            raise LceError(f"{checkpoint.folder}: {error}") from error

    def examined(name: str) -> tuple[str, str, Array]:
        entry, change = entries[name], patch.changes[name]
        found = np.empty_like(change.new)

        def pieces() -> Iterator[tuple[int, Array]]:
            for first, piece in entry.pieces():
                here = within(first, len(piece), change.indices)
                found[here] = piece[change.indices[here] - first]
                yield first, piece

        before = digest(pieces(), entry.code, entry.shape)
        if before == patch.parameters[name].sha256 or change.old is None:
            restored = before
        else:
            restored = digest(entry.pieces(), entry.code, entry.shape, change.indices, change.old)
        return before, restored, found

    sizes = {name: entry.nbytes for name, entry in entries.items()}
    for name, result in ordered(examined, patch.parameters, by_tensor("Checking the base", sizes)):
        yield name, *result


class _Slab(NamedTuple):
    """Entries [first, last) of a tensor to be copied, with the change of that tensor."""

    entry: Entry
    first: int
    last: int
    change: RawChange | None

    @property
    def nbytes(self) -> int:
        return (self.last - self.first) * (self.entry.nbytes // self.entry.size)


def _write(checkpoint: Checkpoint, patch: Patch, which: str, output: Path) -> None:
    """Copy the checkpoint into the folder ``output``, with the ``which`` values of ``patch``."""
    checkpoint.untie(patch.parameters)
    patched_names = aligned(checkpoint.entries, patch.parameters)
    descriptors = {}
    for path, stored in checkpoint.by_path.items():
        size = path.stat().st_size
        with path.open("rb") as source, (output / path.name).open("wb") as target:
            target.write(source.read(min((entry.start for _, entry in stored), default=size)))
            target.truncate(size)
        descriptors[path] = os.open(output / path.name, os.O_WRONLY)

    def slabs() -> Iterator[_Slab]:
        for name, entry in (item for stored in checkpoint.by_path.values() for item in stored):
            patched = patched_names.get(name or "")
            change = patch.changes.get(patched) if patched else None
            if change is None:  # copied as bytes: its type does not matter
                entry = Entry(entry.path, entry.name, "U8", (entry.nbytes,), entry.start, entry.stop)
            for first in range(0, entry.size, PIECE):
                yield _Slab(entry, first, min(first + PIECE, entry.size), change)

    def copied(slab: _Slab) -> None:
        entry, change = slab.entry, slab.change
        piece = entry.read(slab.first, slab.last)
        if change is not None:
            put_(slab.first, piece, change.indices, getattr(change, which))
        view = as_bytes(piece)
        at = entry.start + slab.first * piece.itemsize
        while len(view):
            done = os.pwrite(descriptors[entry.path], view, at)
            view, at = view[done:], at + done

    try:
        entries = [entry for stored in checkpoint.by_path.values() for _, entry in stored]
        total = sum(entry.nbytes for entry in entries)
        progress = Progress[_Slab](
            "Writing", len(entries), total, lambda slab: slab.nbytes, lambda slab: slab.entry.name
        )
        deque(ordered(copied, slabs(), progress), maxlen=0)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    for path in checkpoint.folder.iterdir():
        if path.is_file() and path.suffix not in WEIGHTS:
            shutil.copy(path, output / path.name)
        elif path.is_dir() and not path.name.startswith(".") and path.name != SUBNETWORK:
            shutil.copytree(path, output / path.name)
