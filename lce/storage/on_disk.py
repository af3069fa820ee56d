"""Checkpoints of any size as models to compare: read chunk by chunk, dense or under a one-shot mask.

The mask prunes the smallest weights over all parameters together. It says where target and reference differ where no
iterative magnitude pruning was run; the weights stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from lce.foundations.errors import LceError
from lce.foundations.threads import by_tensor, ordered
from lce.storage.arrays import combined, digest
from lce.storage.checkpoint import Checkpoint
from lce.storage.model_weights import Chunk, ModelWeights, over_chunks
from lce.storage.top_k import SAMPLED, Cutoff, cutoff
from lce.storage.torch_bridge import read_tensor, to_numpy


class StoredModel(ModelWeights):
    """Weight matrices of a checkpoint, read when they are asked for.

    Args:
        checkpoint: the folder.
        names: the parameters that take part, in order, with the checkpoint's names for them.
        pruned_below: a one-shot mask, from `one_shot`.
    """

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, str], pruned_below: OneShot | None = None) -> None:
        self.checkpoint = checkpoint
        self.folder = str(checkpoint.folder)
        self.names = names
        self.entries = {name: checkpoint.entry(own) for name, own in names.items()}
        self.pruned_below = pruned_below
        for entry in self.entries.values():
            if entry.code not in ("F32", "F16", "BF16"):
                raise LceError(
                    f"{entry.path}: {entry.name} is of type {entry.code}; lce compares float32, float16 and bfloat16"
                )

    @property
    def sparsity(self) -> float:
        return self.pruned_below.sparsity if self.pruned_below else 0.0

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries.values())

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each parameter; goes over all of them once."""

        def work(name: str) -> str:
            return digest(self.entries[name].chunks(), self.entries[name].code, self.shapes[name])

        title = f"Fingerprint of {Path(self.folder).name}"
        sizes = {name: entry.nbytes for name, entry in self.entries.items()}
        return dict(ordered(work, self.entries, by_tensor(title, sizes)))

    @property
    def fingerprint(self) -> str:
        return combined(self.digests)

    def values(self, chunk: Chunk) -> Tensor:
        return read_tensor(self.entries[chunk.name], chunk.first, chunk.last)

    def kept(self, chunk: Chunk) -> Tensor | None:
        return self.pruned_below.kept(chunk, self.magnitudes(chunk)) if self.pruned_below else None

    def digest(self, name: str, indices: Tensor | None = None, values: Tensor | None = None) -> str:
        if indices is None or values is None:
            return self.digests[name]
        entry = self.entries[name]
        return digest(entry.chunks(), entry.code, entry.shape, to_numpy(indices), to_numpy(values))


@dataclass(frozen=True)
class OneShot:
    """A mask that prunes all weights with a key below the threshold, and those at it up to the last tie."""

    threshold: int
    last_tie: tuple[int, int]
    """Parameter, by its number, and position."""
    numbers: dict[str, int]
    sparsity: float

    def kept(self, chunk: Chunk, key: Tensor) -> Tensor:
        """Which weights of a chunk, given by their keys, are kept."""
        kept = key >= self.threshold
        number, position = self.numbers[chunk.name], self.last_tie[1]
        ties = chunk.size if number < self.last_tie[0] else position + 1 - chunk.first
        if number <= self.last_tie[0] and ties > 0:
            kept[:ties] &= key[:ties] != self.threshold
        return kept


def one_shot(model: StoredModel, sparsity: float) -> StoredModel:
    """``model`` under a mask that prunes its round(sparsity · n) smallest weights, ties by position.

    This is magnitude pruning without any training: a stand-in where no iterative magnitude pruning was run.

    Raises:
        LceError: the sparsity is outside (0, 1), or prunes nothing.
    """
    size = sum(map(prod, model.shapes.values()))
    count = round(sparsity * size) if 0 < sparsity < 1 else 0
    if not 0 < count < size:
        raise LceError(f"sparsity: expected a share between 0 and 1, got {sparsity:g}")
    title = f"Mask of {Path(model.folder).name}"

    def counted(function: Callable[[str, Tensor], Any], sampled: bool = False) -> Iterator[Any]:
        def work(chunk: Chunk) -> Any:
            return function(chunk.name, model.magnitudes(chunk))

        most = SAMPLED if sampled else None
        return (found for _, found in over_chunks(work, model.shapes, model.nbytes, title, most))

    cut = cutoff(counted, count, size)
    numbers = {name: i for i, name in enumerate(model.shapes)}
    last = (len(numbers), 0)
    if cut.ties < cut.tied:
        last = _last_tie(model, cut, numbers, title)
    return StoredModel(model.checkpoint, model.names, OneShot(cut.threshold, last, numbers, sparsity))


def _last_tie(model: StoredModel, cut: Cutoff, numbers: Mapping[str, int], title: str) -> tuple[int, int]:
    """Where the last of the ties that are pruned lies."""

    def tied(chunk: Chunk) -> Tensor:
        return model.magnitudes(chunk) == cut.threshold

    ties = cut.breaker()
    for chunk, marks in over_chunks(tied, model.shapes, model.nbytes, title):
        chosen = ties.choose(marks)
        if not ties.left:
            return numbers[chunk.name], chunk.first + int(chosen.nonzero()[-1])
    raise LceError(f"{model.folder}: was changed while it was read")
