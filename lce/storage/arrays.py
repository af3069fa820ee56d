"""The entries of a tensor as flat numpy arrays, which need no torch, and their SHA-256."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

CHUNK = 1 << 19
"""Weights that are read and worked on at once."""

TYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16,
    "F8_E4M3": np.uint8, "F8_E5M2": np.uint8,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""The file's codes of types; of those that numpy does not have, the bits."""


def bits(flat: Array) -> Array:
    """The entries as unsigned integers of their size: zeros of either sign differ, and a NaN is equal to itself."""
    return flat.view(f"u{flat.itemsize}")


def as_bytes(flat: Array) -> memoryview:
    """The memory of a contiguous vector."""
    return flat.view(np.uint8).data


def within(first: int, length: int, indices: Array) -> slice:
    """Which of the sorted ``indices`` lie in the chunk of ``length`` entries from ``first`` on."""
    return slice(*np.searchsorted(indices, (first, first + length)))


def put_(first: int, chunk: Array, indices: Array, values: Array) -> None:
    """Put those of ``values`` (n,) whose ``indices`` (n,) lie in the ``chunk`` from ``first`` on there, in place."""
    here = within(first, len(chunk), indices)
    chunk[indices[here] - first] = values[here]


def digest(
    chunks: Iterable[tuple[int, Array]],
    code: str,
    shape: Iterable[int],
    indices: Array | None = None,
    values: Array | None = None,
) -> str:
    """SHA-256 of the line "CODE SHAPE", such as F32 (768, 768), and a tensor's bytes, which come chunk by chunk.

    Args:
        indices, values: if given, ``values`` (n,) are put at the sorted flat ``indices`` (n,) first, into the chunks.
    """
    result = hasher(code, shape)
    for first, chunk in chunks:
        if indices is not None and values is not None:
            put_(first, chunk, indices, values)
        result.update(as_bytes(chunk))
    return result.hexdigest()


def combined(digests: Mapping[str, str]) -> str:
    """One fingerprint of named tensors from their digests."""
    lines = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def hasher(code: str, shape: Iterable[int]) -> Any:
    """The start of the SHA-256 of a tensor: the line "CODE SHAPE", such as F32 (768, 768); its bytes are to follow."""
    return hashlib.sha256(f"{code} {tuple(shape)}\n".encode())


def whole_digest(flat: Array, code: str, shape: tuple[int, ...]) -> str:
    """SHA-256 of a tensor from all of its entries, flat, and the file's ``code`` of their type."""
    result = hasher(code, shape)
    result.update(as_bytes(np.ascontiguousarray(flat)))
    found: str = result.hexdigest()
    return found
