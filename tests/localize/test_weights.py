from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from subnetworks import SHAPES, subnetwork

from lce.foundations.errors import LceError
from lce.localize.controls import uninformed
from lce.localize.selection import Selection
from lce.localize.weights import localize, mask_based, value_based

TARGET, REFERENCE = subnetwork("target", 0), subnetwork("reference", 1)


def marks(selection: Selection) -> torch.Tensor:
    whole = []
    for name, shape in selection.shapes.items():
        mark = torch.zeros(torch.Size(shape).numel(), dtype=torch.bool)
        mark[selection.indices[name]] = True
        whole.append(mark)
    return torch.cat(whole)


def flat(values: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in values.values()])


def test_mask_based_is_the_exclusive_or() -> None:
    selection = mask_based(TARGET, REFERENCE)
    expected = flat(TARGET.mask.kept) != flat(REFERENCE.mask.kept)
    assert torch.equal(marks(selection), expected)
    assert selection.count == int(expected.sum())
    assert selection.share == expected.sum().item() / sum(torch.Size(shape).numel() for shape in SHAPES.values())


@pytest.mark.parametrize("k", [0.1, 0.5, 1.0, 1, 17])
def test_value_based_is_the_exact_top_k_among_those_kept_in_both(k: float) -> None:
    selection = value_based(TARGET, REFERENCE, k)
    both = flat(TARGET.mask.kept) & flat(REFERENCE.mask.kept)
    difference = (flat(REFERENCE.weights) - flat(TARGET.weights)).abs() * both
    count = k if isinstance(k, int) else round(k * int(both.sum()))
    expected = difference.sort(descending=True, stable=True).indices[:count]
    assert sorted(marks(selection).nonzero().flatten().tolist()) == sorted(expected.tolist())


@pytest.mark.parametrize("k", [0, -1, 0.0, 1.5, 10**6])
def test_impossible_k_is_refused(k: float) -> None:
    with pytest.raises(LceError, match="k: expected"):
        value_based(TARGET, REFERENCE, k)


@pytest.mark.parametrize("strategy", ["extrapolation", "pruning"])
def test_uninformed_has_the_same_size_and_respects_the_rule(strategy: str) -> None:
    informed = mask_based(TARGET, REFERENCE)
    draws = [uninformed(informed, TARGET, REFERENCE, strategy, seed) for seed in (0, 0, 1)]
    target, reference = flat(TARGET.mask.kept), flat(REFERENCE.mask.kept)
    allowed = target if strategy == "pruning" else target | reference
    for draw in draws:
        assert draw.count == informed.count
        assert not (marks(draw) & ~allowed).any()
    assert torch.equal(marks(draws[0]), marks(draws[1]))
    assert not torch.equal(marks(draws[0]), marks(draws[2]))


def test_pairs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(LceError, match="same model"):
        mask_based(TARGET, TARGET)
    with pytest.raises(LceError, match="not pruned"):
        mask_based(TARGET, subnetwork("dense", 2, sparsity=0))
    other = subnetwork("other", 1)
    smaller = replace(
        other,
        weights=dict(list(other.weights.items())[:2]),
        mask=type(other.mask)(dict(list(other.mask.kept.items())[:2])),
    )
    with pytest.raises(LceError, match="different architectures"):
        mask_based(TARGET, smaller)
    with pytest.raises(LceError, match="unknown 'layer'; known are mask, value"):
        localize("layer", TARGET, REFERENCE, 0.1)
    same_mask = replace(TARGET, weights={n: 2 * w for n, w in TARGET.weights.items()})
    with pytest.raises(LceError, match="masks are the same"):
        mask_based(TARGET, same_mask)


@pytest.mark.parametrize("strategy", ["extrapolation", "pruning"])
def test_a_matched_control_takes_as_many_of_each_parameter(strategy: str) -> None:
    informed = value_based(TARGET, REFERENCE, 0.2)
    matched, again = (uninformed(informed, TARGET, REFERENCE, strategy, 3, is_matched=True) for _ in range(2))
    assert matched.counts == informed.counts
    assert torch.equal(marks(matched), marks(again))
    assert not torch.equal(marks(matched), marks(informed))
    allowed = flat(TARGET.mask.kept)
    assert bool((allowed if strategy == "pruning" else allowed | flat(REFERENCE.mask.kept))[marks(matched)].all())
