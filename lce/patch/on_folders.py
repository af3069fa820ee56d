"""Patches on checkpoint folders: copied with a patch put in or taken out, chunk by chunk, without any model."""

import os
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.paths import SUBNETWORK
from lce.foundations.threads import Progress, ordered
from lce.patch.card import stack_card, unstack_card
from lce.patch.carry_out import Which, carried_out
from lce.patch.check import naming, patched_entries
from lce.patch.format import Patch
from lce.patch.stored_changes import StoredChanges
from lce.storage.arrays import CHUNK, Array, as_bytes
from lce.storage.checkpoint import Checkpoint, aligned
from lce.storage.hub import OTHER_FORMATS
from lce.storage.safetensors_file import Entry

WEIGHTS = (".safetensors", *OTHER_FORMATS)
"""Ends of the names of files that are rewritten, or left behind because they would be out of date."""


def apply_patch(model: str | Path, patch: Patch, output: str | Path) -> None:
    """Write to ``output`` a copy of the checkpoint ``model`` with ``patch`` applied, and a model card that says so.

    Raises:
        LceError: ``model`` is not the patch's base, would not become what the patch says, or ``output`` exists;
            nothing is left of it then.
    """
    checkpoint = Checkpoint(model)
    with new_output(checkpoint, output) as temporary:
        write_patched(checkpoint, patch, temporary)


def write_patched(checkpoint: Checkpoint, patch: Patch, folder: Path) -> None:
    """As `apply_patch`, into an existing ``folder``, which is worthless if this fails."""
    _write(checkpoint, patch.changes, "new", folder)
    stack_card(folder, patch, checkpoint.title)


def revert_patch(model: str | Path, patch: Patch, output: str | Path) -> None:
    """Write to ``output`` a copy of the patched checkpoint ``model`` with ``patch`` taken back: the base, bit for bit.

    Raises:
        LceError: ``model`` is not the base with this patch applied, the patch has no old values, or ``output`` exists;
            nothing is left of it then.
    """
    checkpoint = Checkpoint(model)
    with new_output(checkpoint, output) as temporary:
        _write(checkpoint, patch.changes, "old", temporary)
        unstack_card(temporary)


@contextmanager
def new_output(checkpoint: Checkpoint, output: str | Path) -> Iterator[Path]:
    """As `new_folder`, for a copy of ``checkpoint``; LceError if ``output`` lies inside of it."""
    if Path(output).absolute().is_relative_to(checkpoint.folder.absolute()):
        raise LceError(f"{output}: lies inside of {checkpoint.folder}, which is copied to it; name a folder elsewhere")
    with new_folder(output) as temporary:
        yield temporary


class _Part(NamedTuple):
    """Entries [first, last) of a tensor to be copied; all of it where it is the patch's parameter ``patched``."""

    entry: Entry
    first: int
    last: int
    patched: str | None

    @property
    def nbytes(self) -> int:
        return (self.last - self.first) * (self.entry.nbytes // self.entry.size)


def _write(checkpoint: Checkpoint, changes: StoredChanges, which: Which, output: Path) -> None:
    """Copy the checkpoint into the folder ``output``, with the ``which`` values of a patch.

    Raises:
        LceError: the checkpoint is not what the patch was made for; what was written until then is worthless.
    """
    patched_entries(changes, checkpoint, which)
    patched_names = aligned(checkpoint.entries, changes.parameters)
    descriptors = {}
    for path, stored in checkpoint.by_path.items():
        size = path.stat().st_size
        with path.open("rb") as source, (output / path.name).open("wb") as target:
            target.write(source.read(min((entry.start for _, entry in stored), default=size)))
            target.truncate(size)
        descriptors[path] = os.open(output / path.name, os.O_WRONLY)

    def parts() -> Iterator[_Part]:
        for name, entry in (item for stored in checkpoint.by_path.values() for item in stored):
            patched = patched_names.get(name or "")
            if patched in changes.parameters:
                yield _Part(entry, 0, entry.size, patched)
                continue
            plain = Entry(entry.path, entry.name, "U8", (entry.nbytes,), entry.start, entry.stop)  # copied as bytes
            for first in range(0, plain.size, CHUNK):
                yield _Part(plain, first, min(first + CHUNK, plain.size), None)

    def write(entry: Entry, first: int, chunk: Array) -> None:
        view, at = as_bytes(chunk), entry.start + first * chunk.itemsize
        while len(view):
            done = os.pwrite(descriptors[entry.path], view, at)
            view, at = view[done:], at + done

    def copied(part: _Part) -> None:
        entry = part.entry
        if part.patched is None:
            write(entry, part.first, entry.read(part.first, part.last))
            return
        for first, chunk in carried_out(changes, part.patched, which, entry.chunks()):
            write(entry, first, chunk)

    try:
        entries = [entry for stored in checkpoint.by_path.values() for _, entry in stored]
        total = sum(entry.nbytes for entry in entries)
        progress = Progress[_Part](
            "Writing", len(entries), total, lambda part: part.nbytes, lambda part: part.entry.name
        )
        with naming(checkpoint):
            deque(ordered(copied, parts(), progress), maxlen=0)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    for path in checkpoint.folder.iterdir():
        if path.is_file() and not path.name.endswith(WEIGHTS):
            shutil.copy(path, output / path.name)
        elif path.is_dir() and not path.name.startswith(".") and path.name != SUBNETWORK:
            shutil.copytree(path, output / path.name)
