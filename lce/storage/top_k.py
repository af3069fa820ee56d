"""Exactly k of many weights: the smallest or largest by magnitude, over any number of tensors, read chunk by chunk.

The threshold is found without sorting: a non-negative float32 and its bits read as an integer have the same order. Of
many weights, a sample tells two keys between which the threshold must lie; one pass counts what is beyond them and
collects the few keys between, among which it is found. Should it lie elsewhere, or are the weights few, it is found by
counting: a histogram over the upper 16 bits finds the threshold's bucket, and one over the lower 16 bits within it the
threshold. Ties go to the earlier position, in the order of the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lce.foundations.errors import LceError
from lce.foundations.threads import by_tensor, ordered
from lce.storage.arrays import Array

INFINITY = 0x7F800000
"""Bits of float32 infinity; those of NaN are higher."""

PART = 1 << 17
"""Weights in memory that are worked on at once: their keys and what comes of them fit the cache of a core."""
SAMPLED = 1 << 12
"""Of each chunk, the first weights that are in the sample."""
MANY = 1 << 22
"""From so many weights on, a sample is drawn."""
MARGIN = 0.005
"""Share of all weights by which the two keys that the sample tells are apart from the threshold, to either side."""


class Counted(Protocol):
    """Given a function of a parameter's name and keys, yields what it makes of each chunk, in order.

    If only ``sampled`` ones are asked for, it may make it of the first `SAMPLED` weights of each chunk.
    """

    def __call__(self, function: Callable[[str, Tensor], Any], sampled: bool = False) -> Iterable[Any]: ...


@dataclass(frozen=True)
class Cutoff:
    """The chosen ones are all on one side of ``threshold``, and the first ``ties`` with that very key."""

    threshold: int
    ties: int
    tied: int
    """How many have that very key."""

    def breaker(self) -> TieBreaker:
        """What chooses among those with that very key, while all chunks are gone through once."""
        return TieBreaker(self.ties)


class TieBreaker:
    """Chooses the first of the ties, in order of position.

    Attributes:
        left: how many are still to be chosen.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def choose(self, tied: Tensor) -> Tensor:
        """Those of the entries marked as ``tied`` (bool, (n,)) that are chosen; the chunks are handed in in order."""
        count = int(torch.count_nonzero(tied))
        chosen = tied if count <= self.left else tied & (tied.cumsum(0) <= self.left)
        self.left -= min(count, self.left)
        return chosen


def keys(tensor: Tensor) -> Tensor:
    """Flat int32 keys that are ordered as float32 magnitudes are."""
    return tensor.detach().float().abs().contiguous().view(torch.int32).flatten()


def cutoff(counted: Counted, count: int, available: int, largest: bool = False) -> Cutoff:
    """Where to cut so that exactly ``count`` of all ``available`` keys, the smallest or the largest ones, are chosen.

    Goes over all keys once, or twice where they are few.

    Raises:
        LceError: a weight is not finite.
    """
    found = _by_sample(counted, count, available, largest) if available >= MANY else None
    return found or _by_histogram(counted, count, largest)


def _by_sample(counted: Counted, count: int, available: int, largest: bool) -> Cutoff | None:
    """The cutoff, if it lies where a sample says."""
    sample = np.sort(np.concatenate(list(counted(lambda name, key: key.cpu().numpy().copy(), sampled=True))))
    if not len(sample):
        return None
    share = 1 - count / available if largest else count / available
    low, high = (
        sample[min(len(sample) - 1, max(0, round(len(sample) * (share + margin))))] for margin in (-MARGIN, MARGIN)
    )

    def split(name: str, key: Tensor) -> tuple[int, Array, Array]:
        """How many keys are beyond both; those between, each once, and how often: there may be millions of ties."""
        keys = key.cpu().numpy()
        if len(keys) and keys.max() >= INFINITY:
            raise _not_finite(name)
        beyond = int(np.count_nonzero(keys > high if largest else keys < low))
        return beyond, *np.unique(keys.take(np.flatnonzero((keys >= low) & (keys <= high))), return_counts=True)

    numbers, values, counts = zip(*counted(split), strict=True)
    left, between, often = count - sum(numbers), np.concatenate(values), np.concatenate(counts)
    if not 0 < left <= often.sum():
        return None
    order = np.argsort(-between if largest else between)
    threshold = int(between[order[np.searchsorted(often[order].cumsum(), left)]])
    nearer = int(often[between > threshold if largest else between < threshold].sum())
    return Cutoff(threshold, left - nearer, int(often[between == threshold].sum()))


def _by_histogram(counted: Counted, count: int, largest: bool) -> Cutoff:
    def upper(name: str, key: Tensor) -> Tensor:
        histogram = torch.bincount(key >> 16, minlength=1 << 15)
        if histogram[INFINITY >> 16 :].any():
            raise _not_finite(name)
        return histogram

    def lower(name: str, key: Tensor) -> Tensor:
        return torch.bincount(key[(key >> 16) == bucket] & 0xFFFF, minlength=1 << 16)

    bucket, beyond = _locate(_total(counted(upper)), count, largest)
    histogram = _total(counted(lower))
    rest, beyond_in_bucket = _locate(histogram, count - beyond, largest)
    return Cutoff(bucket << 16 | rest, count - beyond - beyond_in_bucket, int(histogram[rest]))


def _not_finite(name: str) -> LceError:
    return LceError(f"{name}: holds a value that is not finite; weights must be finite numbers")


def _total(histograms: Iterable[Tensor]) -> Tensor:
    return reduce(Tensor.add_, histograms)


def _locate(histogram: Tensor, count: int, largest: bool) -> tuple[int, int]:
    """The bin in which the ``count``-th entry falls, and the number of entries in the bins that come before it."""
    ordered = histogram.flip(0) if largest else histogram
    cumulative = ordered.cumsum(0)
    index = int(torch.searchsorted(cumulative, count))
    return len(histogram) - 1 - index if largest else index, int(cumulative[index] - ordered[index])


def smallest(tensors: Mapping[str, Tensor], count: int, among: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Marks (bool, the tensors' shapes) of the ``count`` entries of least magnitude where ``among`` is true.

    Raises:
        LceError: fewer than ``count`` entries to choose from, or one that is not finite.
    """
    available = sum(int(mask.sum()) for mask in among.values())
    if not 0 <= count <= available:
        raise LceError(f"cannot choose {count:,} of {available:,} weights")
    if count == 0:
        return {name: torch.zeros_like(among[name]) for name in tensors}
    progress = by_tensor("Pruning", {name: tensor.nbytes for name, tensor in tensors.items()})

    def counted(function: Callable[[str, Tensor], Any], sampled: bool = False) -> Iterator[Any]:
        def whole(name: str) -> list[Any]:
            return [function(name, key) for key in _allowed(tensors[name], among[name], sampled)]

        return (found for _, parts in ordered(whole, tensors, progress) for found in parts)

    cut = cutoff(counted, count, available)

    def below(name: str) -> Tensor:
        chosen = torch.empty(tensors[name].numel(), dtype=torch.bool, device=tensors[name].device)
        for part, key in _parts(tensors[name]):
            torch.lt(key, cut.threshold if cut.ties < cut.tied else cut.threshold + 1, out=chosen[part])
        return chosen.logical_and_(among[name].flatten())

    chosen = {name: marks.view(tensors[name].shape) for name, marks in ordered(below, tensors, progress)}
    if cut.ties < cut.tied:
        ties = cut.breaker()
        for name, marks in chosen.items():
            tied = (keys(tensors[name]) == cut.threshold) & among[name].flatten()
            marks.flatten().logical_or_(ties.choose(tied))
    return chosen


def _parts(tensor: Tensor, sampled: bool = False) -> Iterator[tuple[slice, Tensor]]:
    """Where a part of a tensor is among its entries, and its keys; parts that stay in a processor's cache."""
    flat = tensor.detach().flatten()
    size = PART if tensor.device.type == "cpu" else max(1, len(flat))
    for first in range(0, len(flat), size):
        part = slice(first, min(first + (SAMPLED if sampled else size), len(flat)))
        yield part, keys(flat[part])


def _allowed(tensor: Tensor, among: Tensor, sampled: bool) -> Iterator[Tensor]:
    """The keys where ``among`` is true, part by part."""
    allowed = among.flatten()
    for part, key in _parts(tensor, sampled):
        yield key if allowed[part].all() else key[allowed[part]]
