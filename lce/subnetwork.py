"""A subnetwork f(m ⊙ θ) on disk: an ordinary Hugging Face folder with its mask beside the weights.

``subnetwork/`` inside the folder holds what plain transformers does not know of: the mask, the values that
pruned weights had just before they were pruned (a mask switch brings them back), and a record of how the
subnetwork was made. A folder without it is a dense model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lce.errors import LceError
from lce.files import read_json
from lce.masks import Mask
from lce.paths import MASK, PRUNED_VALUES, RECORD, SUBNETWORK
from lce.tensors import fingerprint, read_file, read_tensors, tensor_digest
from lce.weights import ModelWeights, Piece


@dataclass(frozen=True)
class Subnetwork(ModelWeights):
    """The prunable weights θ of a model (zero where pruned), its mask m, and its pruned weights' old values.

    ``before_pruning`` holds, per parameter, one value per pruned weight, in order of position.
    """

    folder: str
    weights: dict[str, Tensor]
    mask: Mask
    before_pruning: dict[str, Tensor]
    has_mask: bool = True

    def __post_init__(self) -> None:
        self.mask.check(self.weights)

    @property
    def is_pruned(self) -> bool:
        return self.has_mask and self.mask.pruned > 0

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.weights.items()}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.weights.values())

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.weights)

    def values(self, piece: Piece) -> Tensor:
        return self.weights[piece.name].flatten()[piece.first : piece.last]

    def kept(self, piece: Piece) -> Tensor | None:
        return self.mask.kept[piece.name].flatten()[piece.first : piece.last] if self.has_mask else None

    def digest(self, name: str, indices: Tensor | None = None, values: Tensor | None = None) -> str:
        return tensor_digest(self.weights[name], indices, values)

    def values_before_pruning(self, piece: Piece) -> Tensor:
        kept = self.mask.kept[piece.name].flatten()
        start = int((~kept[: piece.first]).sum())
        here = kept[piece.first : piece.last]
        values = self.values(piece).clone()
        old = self.before_pruning[piece.name][start : start + int((~here).sum())]
        values[~here] = old.to(values.dtype)
        return values


def load_subnetwork(folder: str | Path, names: Iterable[str]) -> Subnetwork:
    """Read the parameters ``names`` of a model folder, with its mask if it has one.

    Raises:
        LceError: files are missing or damaged, do not fit each other, or a pruned weight is not zero.
    """
    folder = Path(folder)
    weights = read_tensors(folder, names)
    extra = folder / SUBNETWORK
    if not extra.exists():
        return Subnetwork(str(folder), weights, Mask.dense(weights), {name: torch.empty(0) for name in weights}, False)
    mask = Mask.load(extra / MASK)
    mask.check(weights)
    for name, kept in mask.kept.items():
        if torch.count_nonzero(weights[name][~kept]):
            raise LceError(f"{folder}: {name} has weights where its mask says pruned; it was changed after pruning")
    before_pruning = read_file(extra / PRUNED_VALUES)[1]
    if any(len(before_pruning.get(name, ())) != int((~kept).sum()) for name, kept in mask.kept.items()):
        raise LceError(f"{extra / PRUNED_VALUES}: does not fit the mask beside it")
    return Subnetwork(str(folder), weights, mask, before_pruning)


def pruned_values(mask: Mask, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of ``values`` that ``mask`` prunes, flat, in order of position."""
    return {name: values[name].detach().flatten()[~kept.flatten()].clone() for name, kept in mask.kept.items()}


def read_record(folder: str | Path) -> dict[str, Any]:
    """How the subnetwork in ``folder`` was made; empty for a model that lce did not make."""
    path = Path(folder) / SUBNETWORK / RECORD
    return dict(read_json(path)) if path.exists() else {}
