"""Safetensors files a chunk at a time: nothing here ever holds a whole model, and mostly not even a whole tensor.

The library checks a file's header; from there on, tensors are read with plain reads into buffers of `CHUNK` weights,
which stay in the processor's cache and do not add up to the file's size, as memory-mapped pages do. Entries are numpy's
and not torch's, whose import alone takes a second: what only moves bytes starts at once. `lce.storage.torch_bridge`
leads to torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from lce.foundations.atomic_files import replaced_file
from lce.foundations.errors import LceError
from lce.storage.arrays import CHUNK, TYPES, Array, as_bytes, whole_digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its file, the file's name for its dtype, its shape, and its bytes [start, stop)."""

    path: Path
    name: str
    code: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.stop - self.start

    @property
    def type(self) -> np.dtype[Any]:
        """Raises LceError for a type that lce does not know."""
        if self.code not in TYPES:
            raise LceError(f"{self.path}: {self.name} has the type {self.code}, which lce does not read")
        return np.dtype(TYPES[self.code])

    def read(self, first: int = 0, last: int | None = None, into: Array | None = None) -> Array:
        """The entries [first, last) in order of position, flat; LceError if the file has become shorter.

        Args:
            into: memory to use, of this type and at least as long, instead of new memory.
        """
        count = (self.size if last is None else last) - first
        flat = np.empty(count, self.type) if into is None else into[:count]
        view = as_bytes(flat)
        at = self.start + first * flat.itemsize
        with _reading(self.path) as descriptor:
            while len(view):
                done = os.preadv(descriptor, [view[: 1 << 30]], at)
                if not done:
                    raise LceError(f"{self.path}: ends within {self.name}")
                view, at = view[done:], at + done
        return flat

    def chunks(self) -> Iterator[tuple[int, Array]]:
        """Position of its first entry, and the flat entries, of one chunk after the other, all in the same memory."""
        memory = np.empty(min(CHUNK, self.size), self.type)
        for first in range(0, self.size, CHUNK):
            yield first, self.read(first, min(first + CHUNK, self.size), memory)


@contextmanager
def _reading(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise LceError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        yield descriptor
    except OSError as error:
        raise LceError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)


def read_header(path: str | Path) -> tuple[dict[str, str], dict[str, Entry]]:
    """Metadata and entries of a safetensors file; LceError if it is missing or damaged."""
    path = Path(path)
    try:
        with safe_open(path, framework="np"):  # the library checks the header, and that it fits the file
            pass
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_without_repetition)
    except (OSError, SafetensorError, ValueError, RecursionError, struct.error) as error:
        raise LceError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    metadata = header.pop("__metadata__", None) or {}
    start = 8 + length
    entries = {
        name: Entry(path, name, about["dtype"], tuple(about["shape"]), *(start + o for o in about["data_offsets"]))
        for name, about in header.items()
    }
    return metadata, entries


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(mapping := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    return mapping


def read_record(metadata: dict[str, str], path: str | Path) -> dict[str, Any]:
    """What lce wrote about a file of its own; empty for any other file.

    Raises:
        LceError: it is not what lce wrote.
    """
    text = metadata.get("lce", "{}")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LceError(f"{path}: cannot be read (its metadata is no JSON: {error})") from error
    if not isinstance(record, dict):
        return {}
    has_digests = "digests" in record or "lce_sha256" in metadata
    if has_digests and metadata.get("lce_sha256") != hashlib.sha256(text.encode()).hexdigest():
        raise LceError(f"{path}: is damaged; what it says of itself is not what was written")
    return record


def digests_of(record: dict[str, Any], path: str | Path) -> dict[str, str]:
    """The SHA-256 of each tensor, by name, that a file's ``record`` gives; empty, with a warning, for older files.

    What is missing here `read_checked` adds at the first reading.
    """
    digests = record.get("digests")
    if digests is None:
        log.warning("%s: was made by an older lce, without digests; damage to its values may go unnoticed", path)
        return {}
    if not isinstance(digests, dict):
        raise LceError(f"{path}: is damaged; its digests are no mapping")
    return dict(digests)


def read_checked(entry: Entry, digests: dict[str, str]) -> Array:
    """All entries of a tensor, flat; LceError if they are not those whose SHA-256 is among the ``digests``."""
    flat = entry.read()
    found = whole_digest(flat, entry.code, entry.shape)
    if digests.setdefault(entry.name, found) != found:
        raise LceError(f"{entry.path}: is damaged; {entry.name} does not hold what was written")
    return flat


class TensorWriter:
    """Writes a safetensors file tensor by tensor, the header last: sizes need not be known beforehand.

    Until the end the tensors lie in anonymous temporary files in ``folder``, one per size of entry: in the file larger
    entries come first, so that every tensor is aligned.
    """

    def __init__(self, folder: Path, spools: ExitStack) -> None:
        self.folder = folder
        self.record: dict[str, Any] = {}
        """What goes into the metadata under "lce", together with the digests of all tensors."""
        self.digests: dict[str, str] = {}
        """SHA-256 by name of what was added."""
        self._open = spools
        self._spools: dict[int, IO[bytes]] = {}
        self._tensors: dict[int, list[tuple[str, str, tuple[int, ...]]]] = {}

    @classmethod
    @contextmanager
    def to(cls, path: str | Path) -> Iterator[TensorWriter]:
        """A writer whose file is at ``path`` once the block has succeeded; LceError if the disk is full."""
        with replaced_file(path) as temporary, ExitStack() as spools:
            writer = cls(temporary.parent, spools)
            yield writer
            writer._finish(temporary)

    def add(
        self, name: str, flat: Array, code: str, sha256: str | None = None, shape: tuple[int, ...] | None = None
    ) -> None:
        """Append a tensor with the file's ``code`` of its type: a vector, unless there is a ``shape``.

        Args:
            sha256: its digest (`whole_digest`), if it is known.
        """
        width = flat.itemsize
        if width not in self._spools:
            self._spools[width] = self._open.enter_context(tempfile.TemporaryFile(dir=self.folder))  # noqa: SIM115
            self._tensors[width] = []
        flat = np.ascontiguousarray(flat)
        self._spools[width].write(as_bytes(flat))
        shape = flat.shape if shape is None else shape
        self._tensors[width].append((name, code, shape))
        self.digests[name] = sha256 or whole_digest(flat, code, shape)

    def _finish(self, path: Path) -> None:
        record = json.dumps({**self.record, "digests": self.digests})
        seal = hashlib.sha256(record.encode()).hexdigest()
        header: dict[str, Any] = {"__metadata__": {"lce": record, "lce_sha256": seal}}
        at = 0
        widths = sorted(self._spools, reverse=True)
        for width in widths:
            for name, code, shape in self._tensors[width]:
                end = at + width * prod(shape)
                header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, end]}
                at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for width in widths:
                self._spools[width].seek(0)
                shutil.copyfileobj(self._spools[width], file, 1 << 22)
