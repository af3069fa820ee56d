"""Pruning masks m (1 kept, 0 pruned) and global magnitude pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lce.foundations.errors import LceError
from lce.storage.top_k import smallest
from lce.storage.torch_bridge import read_file, write_file


@dataclass(frozen=True)
class Mask:
    """Which weights are kept: a bool tensor of each prunable parameter's shape, by its name."""

    kept: dict[str, Tensor]

    def __post_init__(self) -> None:
        if not self.kept:
            raise LceError("mask: covers no parameter")
        for name, kept in self.kept.items():
            if kept.dtype != torch.bool:
                raise LceError(f"mask: {name} has dtype {kept.dtype}, expected bool")

    @classmethod
    def dense(cls, parameters: Mapping[str, Tensor]) -> Mask:
        """The mask that keeps everything."""
        return cls({name: torch.ones(p.shape, dtype=torch.bool) for name, p in parameters.items()})

    @property
    def size(self) -> int:
        return sum(kept.numel() for kept in self.kept.values())

    @property
    def pruned(self) -> int:
        return self.size - sum(int(kept.sum()) for kept in self.kept.values())

    @property
    def sparsity(self) -> float:
        """Share of pruned weights in [0, 1]."""
        return self.pruned / self.size

    def check(self, parameters: Mapping[str, Tensor]) -> None:
        """Raises LceError unless the mask covers exactly ``parameters``, each in its shape."""
        if different := sorted(set(self.kept) ^ set(parameters)):
            raise LceError(f"mask: does not fit the model, which differs from it in {', '.join(different[:3])}")
        for name, parameter in parameters.items():
            if self.kept[name].shape != parameter.shape:
                shapes = f"{tuple(self.kept[name].shape)}, the model's {tuple(parameter.shape)}"
                raise LceError(f"mask: {name} has shape {shapes}")

    @torch.no_grad()
    def apply_(self, parameters: Mapping[str, Tensor]) -> None:
        """Set the pruned weights of ``parameters`` to zero, in place."""
        for name, parameter in parameters.items():
            parameter.masked_fill_(~self.kept[name].to(parameter.device), 0)

    def save(self, path: Path) -> None:
        write_file(path, self.kept, {"kind": "mask", "pruned": self.pruned})

    @classmethod
    def load(cls, path: Path) -> Mask:
        """Read a mask; LceError if it is missing, damaged, or not what it says."""
        record, tensors = read_file(path)
        mask = cls(tensors)
        if record.get("pruned") != mask.pruned:
            raise LceError(f"{path}: prunes {mask.pruned:,} weights but says {record.get('pruned')}")
        return mask


def magnitude_prune(parameters: Mapping[str, Tensor], mask: Mask, sparsity: float) -> Mask:
    """Prune the smallest surviving weights, over all parameters together, until ``sparsity`` is reached.

    Exactly round(sparsity · n) of the n weights are pruned in the result, ties by position, and whatever
    ``mask`` had pruned stays pruned.

    Raises:
        LceError: the sparsity is outside [0, 1) or below that of ``mask``.
    """
    mask.check(parameters)
    wanted = round(sparsity * mask.size)
    if not 0 <= sparsity < 1 or wanted < mask.pruned:
        raise LceError(f"sparsity: expected a share from {mask.sparsity:g} up to, not including, 1; got {sparsity:g}")
    gone = smallest(parameters, wanted - mask.pruned, among=mask.kept)
    return Mask({name: kept & ~gone[name].to(kept.device) for name, kept in mask.kept.items()})
