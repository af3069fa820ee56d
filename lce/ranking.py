"""Exactly k of many weights: the smallest or largest by magnitude, over several tensors at once.

The threshold is found by counting, not by sorting: a non-negative float32 and its bits read as an integer
have the same order, so a histogram over the upper 16 bits finds the threshold's bucket, and one over the lower 16
bits within it the threshold. Ties go to the earlier position, in the order of the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lce.errors import LceError

INFINITY = 0x7F800000
"""Bits of float32 infinity; those of NaN are higher."""


def smallest(tensors: Mapping[str, Tensor], count: int, among: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Marks (bool, the tensors' shapes) of the ``count`` entries of least magnitude where ``among`` is true.

    Raises:
        LceError: fewer than ``count`` entries to choose from, or one that is not finite.
    """
    return _choose(tensors, count, among, descending=False)


def largest(tensors: Mapping[str, Tensor], count: int, among: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `smallest`, of greatest magnitude."""
    return _choose(tensors, count, among, descending=True)


def _choose(
    tensors: Mapping[str, Tensor], count: int, among: Mapping[str, Tensor], descending: bool
) -> dict[str, Tensor]:
    available = sum(int(mask.sum()) for mask in among.values())
    if not 0 <= count <= available:
        raise LceError(f"cannot choose {count:,} of {available:,} weights")
    if count == 0:
        return {name: torch.zeros_like(among[name]) for name in tensors}

    def keys() -> Iterator[Tensor]:
        for name, tensor in tensors.items():
            yield _keys(name, tensor, descending)[among[name].flatten()]

    upper = sum(torch.bincount(key >> 16, minlength=1 << 15) for key in keys())
    assert isinstance(upper, Tensor), "there is a weight to choose, hence a tensor"
    bucket, below = _locate(upper, count)
    inside = (key[(key >> 16) == bucket] & 0xFFFF for key in keys())
    lower = sum(torch.bincount(key, minlength=1 << 16) for key in inside)
    assert isinstance(lower, Tensor), "there is a weight to choose, hence a tensor"
    rest, below_in_bucket = _locate(lower, count - below)
    threshold = bucket << 16 | rest
    ties = count - below - below_in_bucket

    chosen = {}
    for name, tensor in tensors.items():
        key, allowed = _keys(name, tensor, descending), among[name].flatten()
        mask = (key < threshold) & allowed
        tied = ((key == threshold) & allowed).nonzero().flatten()[:ties]
        mask[tied] = True
        ties -= len(tied)
        chosen[name] = mask.view(tensor.shape)
    return chosen


def _keys(name: str, tensor: Tensor, descending: bool) -> Tensor:
    """Flat int32 keys, smallest first."""
    bits = tensor.detach().float().abs().contiguous().view(torch.int32).flatten()
    if bits.numel() and int(bits.max()) >= INFINITY:
        raise LceError(f"{name}: holds a value that is not finite; weights must be finite numbers")
    return INFINITY - bits if descending else bits


def _locate(histogram: Tensor, count: int) -> tuple[int, int]:
    """The bin in which the ``count``-th entry falls, and the number of entries in the bins before it."""
    cumulative = histogram.cumsum(0)
    index = int(torch.searchsorted(cumulative, count))
    return index, int(cumulative[index] - histogram[index])
