from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from subnetworks import SHAPES, subnetwork

from lce.diff import Selection, layer_and_component, localize, mask_based, uninformed, value_based
from lce.errors import LceError
from lce.figures import heat_map

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


def test_counts_by_layer_and_component() -> None:
    selection = value_based(TARGET, REFERENCE, 1.0)
    cells = selection.by_layer_and_component()
    assert set(cells) == {(i, c) for i in (0, 1) for c in ("attention.output.dense", "intermediate.dense")}
    assert sum(n for n, _ in cells.values()) == selection.count
    assert sum(total for _, total in cells.values()) == selection.size
    assert sum(about["count"] for about in selection.by_component().values()) == selection.count
    assert layer_and_component("model.layers.12.mlp.Wo.weight") == (12, "mlp.Wo")


def test_saved_and_read_back(tmp_path: Path) -> None:
    selection = mask_based(TARGET, REFERENCE)
    selection.save(tmp_path / "s.safetensors")
    read = Selection.load(tmp_path / "s.safetensors")
    assert torch.equal(marks(read), marks(selection))
    assert replace(read, indices={}) == replace(selection, indices={})
    heat_map(selection, tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 5_000


@pytest.mark.parametrize("indices", [[3, 2], [2, 2], [-1, 2], [0, 48]])
def test_wrong_indices_are_refused(tmp_path: Path, indices: list[int]) -> None:
    selection = mask_based(TARGET, REFERENCE)
    first = next(iter(SHAPES))
    replace(selection, indices=selection.indices | {first: torch.tensor(indices)}).save(tmp_path / "s.safetensors")
    with pytest.raises(LceError, match=r"index lies outside|not sorted"):
        Selection.load(tmp_path / "s.safetensors")


def test_another_file_is_no_selection(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "s.safetensors")
    with pytest.raises(LceError, match="is no selection"):
        Selection.load(tmp_path / "s.safetensors")
    with pytest.raises(LceError, match="cannot be read"):
        Selection.load(tmp_path / "missing.safetensors")
