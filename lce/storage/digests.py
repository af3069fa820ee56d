"""SHA-256 of tensors, and of several of them together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lce.storage.arrays import Array, as_bytes, put_


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
