"""Safetensors files a piece at a time: nothing here ever holds a whole model, and mostly not even a whole tensor.

The library checks a file's header; from there on, tensors are read with plain reads into buffers of `PIECE` weights,
which stay in the processor's cache and do not add up to the file's size, as memory-mapped pages do.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lce.errors import LceError
from lce.files import cannot_write, replaced_file

PIECE = 1 << 19
"""Weights that are read and worked on at once."""

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}


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
    def dtype(self) -> torch.dtype:
        """Raises LceError where torch has no such type."""
        if self.code not in DTYPES:
            raise LceError(f"{self.path}: {self.name} has the type {self.code}, which lce does not read")
        return DTYPES[self.code]

    def read(self, first: int = 0, last: int | None = None) -> Tensor:
        """The entries [first, last) in order of position, flat; LceError if the file has become shorter."""
        count = (self.size if last is None else last) - first
        flat = torch.empty(count, dtype=self.dtype)
        view = as_bytes(flat)
        at = self.start + first * flat.element_size()
        with _reading(self.path) as descriptor:
            while len(view):
                done = os.preadv(descriptor, [view], at)
                if not done:
                    raise LceError(f"{self.path}: ends within {self.name}")
                view, at = view[done:], at + done
        return flat

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """Position of its first entry, and the flat entries, of one piece after the other."""
        for first in range(0, self.size, PIECE):
            yield first, self.read(first, min(first + PIECE, self.size))


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


def bits(flat: Tensor) -> Tensor:
    """The entries as integers of their size: zeros of either sign differ, and a NaN is equal to itself."""
    return flat.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()])


def as_bytes(flat: Tensor) -> memoryview:
    """The memory of a contiguous vector."""
    view: memoryview = flat.view(torch.uint8).numpy().data
    return view


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


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What lce wrote about a file of its own (empty for any other file), and all its tensors."""
    metadata, entries = read_header(path)
    return read_record(metadata, path), {name: entry.read().view(entry.shape) for name, entry in entries.items()}


def read_record(metadata: dict[str, str], path: str | Path) -> dict[str, Any]:
    """What lce wrote about a file of its own; empty for any other file."""
    try:
        record = json.loads(metadata.get("lce", "{}"))
    except (ValueError, RecursionError) as error:
        raise LceError(f"{path}: cannot be read (its metadata is no JSON: {error})") from error
    return record if isinstance(record, dict) else {}


class TensorWriter:
    """Writes a safetensors file tensor by tensor, the header last: sizes need not be known beforehand.

    Used as a context; leaving it in peace renames the finished file to ``path``. Until then the tensors lie in
    anonymous temporary files beside it, one per size of entry: in the file larger entries come first, so that every
    tensor is aligned.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.record: dict[str, Any] = {}
        """What goes into the metadata under "lce"."""
        self._spools: dict[int, IO[bytes]] = {}
        self._tensors: dict[int, list[tuple[str, torch.dtype, int]]] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Append a flat ``tensor``; LceError if the disk is full."""
        width = tensor.element_size()
        try:
            if width not in self._spools:
                self._spools[width] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
                self._tensors[width] = []
            self._spools[width].write(as_bytes(tensor.contiguous()))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._tensors[width].append((name, tensor.dtype, len(tensor)))

    def __enter__(self) -> TensorWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for spool in self._spools.values():
                with suppress(OSError):
                    spool.close()

    def _finish(self) -> None:
        header: dict[str, Any] = {"__metadata__": {"lce": json.dumps(self.record)}}
        at = 0
        widths = sorted(self._spools, reverse=True)
        for width in widths:
            for name, dtype, count in self._tensors[width]:
                end = at + width * count
                header[name] = {"dtype": CODES[dtype], "shape": [count], "data_offsets": [at, end]}
                at = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with replaced_file(self.path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for width in widths:
                self._spools[width].seek(0)
                shutil.copyfileobj(self._spools[width], file, 1 << 22)
