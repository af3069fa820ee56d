from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from subnetworks import SHAPES, subnetwork

from lce.foundations.errors import LceError
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


@pytest.mark.parametrize("size", [{"share": 0.1}, {"share": 0.5}, {"share": 1}, {"count": 1}, {"count": 17}], ids=str)
def test_value_based_is_the_exact_top_k_among_those_kept_in_both(size: dict[str, Any]) -> None:
    selection = value_based(TARGET, REFERENCE, **size)
    both = flat(TARGET.mask.kept) & flat(REFERENCE.mask.kept)
    difference = (flat(REFERENCE.weights) - flat(TARGET.weights)).abs() * both
    count = size.get("count") or round(size["share"] * int(both.sum()))
    expected = difference.sort(descending=True, stable=True).indices[:count]
    assert sorted(marks(selection).nonzero().flatten().tolist()) == sorted(expected.tolist())


@pytest.mark.parametrize("size", [{"share": 0.5}, {"count": 7}], ids=str)
def test_weights_that_do_not_differ_are_not_selected(size: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Of models that are alike but for five weights, as where only some layers were trained."""
    name = list(SHAPES)[2]
    weights = {key: tensor.clone() for key, tensor in TARGET.weights.items()}
    places = TARGET.mask.kept[name].flatten().nonzero().flatten()[-5:]
    weights[name].view(-1)[places] += 1
    selection = value_based(TARGET, replace(TARGET, folder="reference", weights=weights), **size)
    assert {key: indices.tolist() for key, indices in selection.indices.items() if len(indices)} == {
        name: places.tolist()
    }
    assert "only 5 of the" in caplog.text


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, 5, 1e-9, float("nan")])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(LceError, match=r"share: expected a share in \(0, 1\], at least one of"):
        value_based(TARGET, REFERENCE, share)


@pytest.mark.parametrize("count", [0, -1, 10**6])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(LceError, match="count: expected a number of weights from 1 to"):
        value_based(TARGET, REFERENCE, count=count)


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
        localize("layer", TARGET, REFERENCE)
    same_mask = replace(TARGET, weights={n: 2 * w for n, w in TARGET.weights.items()})
    with pytest.raises(LceError, match="masks are the same"):
        mask_based(TARGET, same_mask)
