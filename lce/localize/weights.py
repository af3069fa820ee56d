"""Localisation: which weights carry the difference between a target and a reference.

A selection b marks the weights that an edit may touch. Mask-based: those kept in exactly one of the two
subnetworks, b = m_t XOR m_r (eq. 1). Value-based: the k largest by |m_r ⊙ θ_r − m_t ⊙ θ_t| among those kept
in both (eq. 2). (Lutz et al. 2024, section 3.2.)

Whether the two models are in memory or on a disk, they are gone through chunk by chunk.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lce.foundations.errors import LceError
from lce.localize.selection import Selection
from lce.storage.model_weights import Chunk, ModelWeights, over_chunks
from lce.storage.top_k import SAMPLED, cutoff

log = logging.getLogger(__name__)


def mask_based(target: ModelWeights, reference: ModelWeights, path: Path | None = None) -> Selection:
    """b = m_t XOR m_r (eq. 1).

    Args:
        path: if given, the selection is written there as it is found, and never held whole.

    Raises:
        LceError: the two do not fit, one of them has no mask, or their masks are the same.
    """
    check_pair(target, reference)
    for model in (target, reference):
        if not model.is_pruned:
            raise LceError(
                f"{model.folder}: is not pruned, so its mask says nothing; use a sparse subnetwork "
                "or the value-based localisation"
            )

    def differing(chunk: Chunk) -> Tensor:
        kept, other = target.kept(chunk), reference.kept(chunk)
        assert kept is not None, "both have masks"
        assert other is not None, "both have masks"
        return (kept ^ other).nonzero().flatten() + chunk.first

    selection = Selection.of(target, reference, "mask", _joined(_over_both(target, reference, differing)), path)
    if not selection.count:
        raise LceError(f"{target.folder} and {reference.folder}: their masks are the same; nothing is selected")
    return selection


def value_based(
    target: ModelWeights,
    reference: ModelWeights,
    share: float = 0.1,
    count: int | None = None,
    path: Path | None = None,
) -> Selection:
    """The top k by |m_r ⊙ θ_r − m_t ⊙ θ_t| among the weights kept in both (eq. 2), ties by position.

    Where fewer than k differ, these alone are selected, and a warning says so, but for k = all weights.

    Args:
        share: k as a share of those kept in both, in (0, 1].
        count: k as a number of weights, instead of the share.
        path: if given, the selection is written there as it is found, and never held whole.

    Raises:
        LceError: the two do not fit, are the same, or k is out of range.
    """
    check_pair(target, reference)

    def kept_in_both(chunk: Chunk) -> Tensor | None:
        kept, other = target.kept(chunk), reference.kept(chunk)
        return kept if other is None else other if kept is None else kept & other

    def differences(chunk: Chunk) -> Tensor:
        """Keys of the differences between weights kept in both."""
        both = kept_in_both(chunk)
        key = target.magnitudes(chunk, reference)
        return key if both is None else key[both]

    available = sum(map(prod, target.shapes.values()))
    if target.is_pruned or reference.is_pruned:
        available = sum(number for _, number in _over_both(target, reference, lambda chunk: len(differences(chunk))))
    if count is None:
        count = round(share * available) if 0 < share <= 1 else 0
        if not count:
            raise LceError(f"share: expected a share in (0, 1], at least one of {available:,} weights, got {share:g}")
    if not 1 <= count <= available:
        raise LceError(f"count: expected a number of weights from 1 to {available:,}, got {count:,}")

    if count == sum(map(prod, target.shapes.values())):
        everything = ((name, torch.arange(prod(shape))) for name, shape in target.shapes.items())
        return Selection.of(target, reference, "value", everything, path)

    def counted(function: Callable[[str, Tensor], Any], sampled: bool = False) -> Iterator[Any]:
        found = _over_both(target, reference, lambda chunk: function(chunk.name, differences(chunk)), sampled)
        return (result for _, result in found)

    cut = cutoff(counted, count, available, largest=True)
    if not cut.threshold:  # the smallest of them are differences of 0
        log.warning(
            "only %s of the %s weights asked for differ; these are selected", f"{count - cut.ties:,}", f"{count:,}"
        )
        cut = replace(cut, ties=0)
    ties = cut.breaker()

    def candidates(chunk: Chunk) -> tuple[Tensor, Tensor | None]:
        """Positions from the threshold on, and which of them are at it; none are once all ties are chosen."""
        key = differences(chunk).numpy()
        is_over = not ties.left
        among = np.flatnonzero(key > cut.threshold if is_over else key >= cut.threshold)
        tied = None if is_over else torch.from_numpy(key.take(among) == cut.threshold)
        both = kept_in_both(chunk)
        positions = torch.from_numpy(among)
        if both is not None:
            positions = both.nonzero().flatten().index_select(0, positions)
        return positions.add_(chunk.first), tied

    def chosen() -> Iterator[tuple[Chunk, Tensor]]:
        for chunk, (positions, tied) in _over_both(target, reference, candidates):
            if tied is not None and (taken := ties.choose(tied)) is not tied:
                positions = positions.masked_select(~tied | taken)
            yield chunk, positions

    return Selection.of(target, reference, "value", _joined(chosen()), path)


def _over_both(
    target: ModelWeights, reference: ModelWeights, work: Callable[[Chunk], Any], sampled: bool = False
) -> Iterator[tuple[Chunk, Any]]:
    read = target.nbytes + reference.nbytes
    return over_chunks(work, target.shapes, read, "Localisation", SAMPLED if sampled else None)


def _joined(found: Iterable[tuple[Chunk, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The positions of a parameter's chunks together."""
    for name, group in groupby(found, key=lambda item: item[0].name):
        yield name, torch.cat([positions for _, positions in group])


LOCALIZATIONS = ("mask", "value")


def localize(
    localization: str, target: ModelWeights, reference: ModelWeights, path: Path | None = None, **size: Any
) -> Selection:
    """The selection by ``localization``; the ``size`` of a value-based one is a share or a count."""
    if localization == "mask":
        return mask_based(target, reference, path)
    if localization == "value":
        return value_based(target, reference, path=path, **size)
    raise LceError(f"localization: unknown {localization!r}; known are {', '.join(LOCALIZATIONS)}")


def check_pair(target: ModelWeights, reference: ModelWeights) -> None:
    """Raises LceError if the two have different parameters, or are the same."""
    if target.shapes != reference.shapes:
        raise LceError(f"{target.folder} and {reference.folder}: have different architectures and cannot be compared")
    if target.fingerprint == reference.fingerprint:
        raise LceError(f"{target.folder} and {reference.folder}: are the same model; target and reference must differ")
