"""Patches between and onto checkpoint folders, chunk by chunk, without instantiating a model."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.paths import SUBNETWORK
from lce.foundations.threads import Progress, by_tensor, ordered
from lce.patch.card import stack_card, unstack_card
from lce.patch.carry_out import Which, carried_out
from lce.patch.format import Patch, same_bits
from lce.storage.arrays import CHUNK, Array, as_bytes
from lce.storage.checkpoint import Checkpoint, aligned
from lce.storage.digests import digest
from lce.storage.hub import resolve
from lce.storage.safetensors_file import Entry

Result = TypeVar("Result")
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".ot"}
"""Files of weights beside the configuration: rewritten, or left behind because they would be out of date."""


def apply_patch(model: str | Path, patch: Patch, output: str | Path) -> None:
    """Write to ``output`` a copy of the checkpoint ``model`` with ``patch`` applied, and a model card that says so.

    Raises:
        LceError: ``model`` is not the patch's base, would not become what the patch says, or ``output`` exists;
            nothing is left of it then.
    """
    checkpoint = Checkpoint(resolve(model))
    with new_output(checkpoint, output) as temporary:
        write_patched(checkpoint, patch, temporary, str(model))


def write_patched(checkpoint: Checkpoint, patch: Patch, folder: Path, name: str) -> None:
    """As `apply_patch`, into an existing ``folder``, which is worthless if this fails; ``name`` is the checkpoint's."""
    _write(checkpoint, patch, "new", folder)
    stack_card(folder, patch, name)


def revert_patch(model: str | Path, patch: Patch, output: str | Path) -> None:
    """Write to ``output`` a copy of the patched checkpoint ``model`` with ``patch`` taken back: the base, bit for bit.

    Raises:
        LceError: ``model`` is not the base with this patch applied, the patch has no old values, or ``output`` exists;
            nothing is left of it then.
    """
    patch.check_revertible()
    checkpoint = Checkpoint(resolve(model))
    with new_output(checkpoint, output) as temporary:
        _write(checkpoint, patch, "old", temporary)
        unstack_card(temporary)


@contextmanager
def new_output(checkpoint: Checkpoint, output: str | Path) -> Iterator[Path]:
    """As `new_folder`, for a copy of ``checkpoint``; LceError if ``output`` lies inside of it."""
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
    entries = _patched_entries(checkpoint, patch)

    def found(name: str) -> tuple[bool, bool]:
        """Whether a parameter is the base's, and whether it is the base's with the patch applied."""
        entry, about, change = entries[name], patch.parameters[name], patch.changes[name]
        now = digest(entry.chunks(), entry.code, entry.shape)
        if about.sha256_after is not None:
            return now == about.sha256, now == about.sha256_after
        if now == about.sha256:
            return True, change.old is not None and same_bits(change.new, change.old)
        if change.old is None:
            raise LceError("is not the base; whether it has this patch cannot be told without old values")
        try:
            deque(carried_out(patch, name, "old", entry.chunks()), maxlen=0)
        except LceError:
            return False, False
        return False, True

    states = set()
    try:
        for name, (is_base, is_patched) in _over(found, entries, "Checking the model"):
            if not is_base and not is_patched:
                raise LceError(f"its {name} is neither the patch's base nor the base with the patch applied")
            if is_base != is_patched:  # both where the patch puts in what was there
                states.add("base" if is_base else "patched")
        if len(states) > 1:
            raise LceError("has the patch applied in some of its parameters only")
    except LceError as error:
        raise LceError(f"{model}: {error}") from error
    return states.pop() if states else "base"


def check_applies(model: str | Path, patch: Patch) -> None:
    """Raises LceError unless the checkpoint ``model`` is the base of ``patch`` and becomes what the patch says."""
    checkpoint = Checkpoint(resolve(model))
    entries = _patched_entries(checkpoint, patch)

    def check(name: str) -> None:
        deque(carried_out(patch, name, "new", entries[name].chunks()), maxlen=0)

    try:
        deque(_over(check, entries, "Checking the base"), maxlen=0)
    except LceError as error:
        raise LceError(f"{model}: {error}") from error


def _patched_entries(checkpoint: Checkpoint, patch: Patch) -> dict[str, Entry]:
    """Where the parameters of ``patch`` lie, by its names; LceError if one is missing or of another shape or type."""
    checkpoint.untie(patch.parameters)
    names = {patched: name for name, patched in aligned(checkpoint.entries, patch.parameters).items()}
    entries = {name: checkpoint.entries[names[name]] for name in patch.parameters if name in names}
    for name in patch.parameters:
        entry = entries.get(name)
        try:
            patch.check_parameter(name, None if entry is None else (entry.shape, entry.code))
        except LceError as error:
            raise LceError(f"{checkpoint.folder}: {error}") from error
    return entries


def _over(work: Callable[[str], Result], entries: Mapping[str, Entry], title: str) -> Iterator[tuple[str, Result]]:
    """What ``work`` makes of each patched parameter, in order."""
    return ordered(work, entries, by_tensor(title, {name: entry.nbytes for name, entry in entries.items()}))


class _Part(NamedTuple):
    """Entries [first, last) of a tensor to be copied; all of it where it is the patch's parameter ``patched``."""

    entry: Entry
    first: int
    last: int
    patched: str | None

    @property
    def nbytes(self) -> int:
        return (self.last - self.first) * (self.entry.nbytes // self.entry.size)


def _write(checkpoint: Checkpoint, patch: Patch, which: Which, output: Path) -> None:
    """Copy the checkpoint into the folder ``output``, with the ``which`` values of ``patch``.

    Raises:
        LceError: the checkpoint is not what the patch was made for; what was written until then is worthless.
    """
    _patched_entries(checkpoint, patch)
    patched_names = aligned(checkpoint.entries, patch.parameters)
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
            if patched in patch.parameters:
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
        for first, chunk in carried_out(patch, part.patched, which, entry.chunks()):
            write(entry, first, chunk)

    try:
        entries = [entry for stored in checkpoint.by_path.values() for _, entry in stored]
        total = sum(entry.nbytes for entry in entries)
        progress = Progress[_Part](
            "Writing", len(entries), total, lambda part: part.nbytes, lambda part: part.entry.name
        )
        deque(ordered(copied, parts(), progress), maxlen=0)
    except LceError as error:
        raise LceError(f"{checkpoint.folder}: {error}") from error
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    for path in checkpoint.folder.iterdir():
        if path.is_file() and path.suffix not in WEIGHTS:
            shutil.copy(path, output / path.name)
        elif path.is_dir() and not path.name.startswith(".") and path.name != SUBNETWORK:
            shutil.copytree(path, output / path.name)
