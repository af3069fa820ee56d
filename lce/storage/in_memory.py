"""A subnetwork f(m ⊙ θ) on disk: an ordinary Hugging Face folder with its mask beside the weights.

``subnetwork/`` inside the folder holds what plain transformers does not know of: the mask, the values that
pruned weights had just before they were pruned (a mask switch brings them back), and a record of how the
subnetwork was made. A folder without it is a dense model.
"""

import json
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lce.foundations.errors import LceError
from lce.foundations.files import read_json
from lce.foundations.paths import MASK, PRUNED_VALUES, RECORD, SUBNETWORK
from lce.storage.masks import Mask
from lce.storage.model_weights import Chunk, ModelWeights
from lce.storage.torch_bridge import fingerprint, read_file, read_tensors, tensor_digest


@dataclass(frozen=True)
class Subnetwork(ModelWeights):
    """The prunable weights θ of a model (zero where pruned), its mask m, and its pruned weights' old values.

    ``before_pruning`` holds, per parameter, one value per pruned weight, in order of position.
    """

    folder: str
    weights: dict[str, Tensor]
    mask: Mask
    before_pruning: dict[str, Tensor]

    def __post_init__(self) -> None:
        self.mask.check(self.weights)

    @cached_property
    def sparsity(self) -> float:
        return self.mask.sparsity

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.weights.items()}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.weights.values())

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.weights)

    def renamed(self, names: Mapping[str, str]) -> "Subnetwork":
        """The same subnetwork by other names: new name → the name it has here."""
        kept = {new: self.mask.kept[old] for new, old in names.items()}
        before_pruning = {new: self.before_pruning[old] for new, old in names.items() if old in self.before_pruning}
        return Subnetwork(
            self.folder, {new: self.weights[old] for new, old in names.items()}, Mask(kept), before_pruning
        )

    def values(self, chunk: Chunk) -> Tensor:
        return self.weights[chunk.name].flatten()[chunk.first : chunk.last]

    def kept(self, chunk: Chunk) -> Tensor:
        return self.mask.kept[chunk.name].flatten()[chunk.first : chunk.last]

    def digest(self, name: str, indices: Tensor | None = None, values: Tensor | None = None) -> str:
        return tensor_digest(self.weights[name], indices, values)

    def values_before_pruning(self, chunk: Chunk) -> Tensor:
        kept = self.mask.kept[chunk.name].flatten()
        start = int((~kept[: chunk.first]).sum())
        here = kept[chunk.first : chunk.last]
        values = self.values(chunk).clone()
        old = self.before_pruning[chunk.name][start : start + int((~here).sum())]
        values[~here] = old.to(values.dtype)
        return values


def load_subnetwork(folder: str | Path, names: Iterable[str]) -> Subnetwork:
    """Read the parameters ``names`` of a subnetwork's folder, with its mask.

    Raises:
        LceError: files are missing or damaged, do not fit each other, or a pruned weight is not zero.
    """
    folder = Path(folder)
    weights = read_tensors(folder, names)
    extra = folder / SUBNETWORK
    mask = Mask.load(extra / MASK)
    mask.check(weights)
    for name, kept in mask.kept.items():
        if torch.count_nonzero(weights[name][~kept]):
            raise LceError(f"{folder}: {name} has weights where its mask says pruned; it was changed after pruning")
    before_pruning = read_file(extra / PRUNED_VALUES)[1]
    for name, kept in mask.kept.items():
        values = before_pruning.get(name, torch.empty(0))
        if tuple(values.shape) != (int((~kept).sum()),) or not values.dtype.is_floating_point:
            raise LceError(f"{extra / PRUNED_VALUES}: does not fit the mask beside it in {name}")
    return Subnetwork(str(folder), weights, mask, before_pruning)


def pruned_values(mask: Mask, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of ``values`` that ``mask`` prunes, flat, in order of position."""
    return {name: values[name].detach().flatten()[~kept.flatten()].clone() for name, kept in mask.kept.items()}


def read_record(folder: str | Path, needed: Iterable[str] = ()) -> dict[str, Any]:
    """How the subnetwork in ``folder`` was made; empty for a model that lce did not make.

    Raises:
        LceError: the record is none, holds something else under a key that lce writes, or lacks a ``needed`` one.
    """
    path = Path(folder) / SUBNETWORK / RECORD
    record = read_json(path) if path.exists() else {}
    if not isinstance(record, dict):
        raise LceError(f"{path}: expected a mapping, got {type(record).__name__}")
    if missing := [key for key in needed if key not in record]:
        raise LceError(f"{path}: has no {missing[0]}")
    for key, (fits, expected) in KEYS.items():
        if key in record and not fits(record[key]):
            raise LceError(f"{path}: {key} is {reprlib.repr(record[key])}; expected {expected}")
    try:
        json.dumps(record, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # it goes into other records, which hold text and finite numbers
        raise LceError(f"{path}: holds what no record can ({error})") from error
    return record


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < inf


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("variant", "base"), (lambda value: isinstance(value, str), "a text")),
    **dict.fromkeys(("seed", "pruned", "prunable"), (lambda value: type(value) is int, "a whole number")),
    **dict.fromkeys(("perplexity", "dense_perplexity"), (_is_number, "a number")),
    "sparsity": (_is_share, "a share from 0 up to, not including, 1"),
    "schedule": (lambda value: isinstance(value, list) and all(map(_is_share, value)), "a list of such shares"),
    "winning_ticket": (lambda value: isinstance(value, bool), "true or false"),
}
"""What readers of a record rely on, key by key; older records lack some of them, and others may stand beside them."""
