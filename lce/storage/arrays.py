"""The entries of a tensor as flat numpy arrays, whose types need no torch."""

from __future__ import annotations

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
