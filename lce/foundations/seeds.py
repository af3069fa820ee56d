"""Random numbers as functions of their purpose.

All random numbers come from ``generator(seed, purpose, ...)``, none from a global stream. A batch, a mask or a
dropout pattern therefore depends on its seed and its place alone: not on what ran before it, on how many
processes share the work, or on whether the run was interrupted.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*parts: int | float | str) -> int:
    """A 63-bit integer that depends on all of ``parts`` and on nothing else."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(*parts: int | float | str) -> torch.Generator:
    """A CPU generator seeded with ``derive(*parts)``."""
    import torch

    return torch.Generator().manual_seed(derive(*parts))
