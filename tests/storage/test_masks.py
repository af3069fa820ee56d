from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from transformers import BertForMaskedLM

from lce.foundations.errors import LceError
from lce.models.layers import prunable_parameters
from lce.storage.masks import Mask, magnitude_prune


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.4, 0.77])
def test_against_torch_global_unstructured(model: BertForMaskedLM, sparsity: float) -> None:
    parameters = prunable_parameters(model)
    mask = magnitude_prune(parameters, Mask.dense(parameters), sparsity)
    modules = {name: model.get_submodule(name.removesuffix(".weight")) for name in parameters}
    prune.global_unstructured(
        [(module, "weight") for module in modules.values()],
        pruning_method=prune.L1Unstructured,
        amount=mask.pruned,
    )
    assert mask.pruned == round(sparsity * mask.size)
    for name, module in modules.items():
        assert torch.equal(mask.kept[name], module.weight_mask.bool())


def test_masks_are_nested_and_exact(model: BertForMaskedLM) -> None:
    parameters = prunable_parameters(model)
    mask = Mask.dense(parameters)
    for sparsity in (0.1, 0.2, 0.3, 0.4):
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.normal_(generator=torch.Generator().manual_seed(int(100 * sparsity)))
        denser, mask = mask, magnitude_prune(parameters, mask, sparsity)
        assert mask.pruned == round(sparsity * mask.size)
        assert all((denser.kept[name] | ~kept).all() for name, kept in mask.kept.items())


def test_equal_weights_are_pruned_by_position() -> None:
    parameters = {"a": nn.Parameter(torch.ones(2, 5)), "b": nn.Parameter(-torch.ones(10))}
    mask = magnitude_prune(parameters, Mask.dense(parameters), 0.35)
    assert mask.kept["a"].flatten().tolist() == [False] * 7 + [True] * 3
    assert mask.kept["b"].all()


@pytest.mark.parametrize("sparsity", [-0.1, 0.1, 1.0])
def test_impossible_sparsities_are_refused(sparsity: float) -> None:
    parameters = {"a": torch.arange(10.0)}
    mask = magnitude_prune(parameters, Mask.dense(parameters), 0.2)
    with pytest.raises(LceError, match="sparsity"):
        magnitude_prune(parameters, mask, sparsity)


def test_saved_and_read_back(tmp_path: Path) -> None:
    parameters = {"a": torch.arange(10.0), "b": torch.arange(4.0).view(2, 2)}
    mask = magnitude_prune(parameters, Mask.dense(parameters), 0.5)
    mask.save(tmp_path / "mask.safetensors")
    read = Mask.load(tmp_path / "mask.safetensors")
    assert all(torch.equal(read.kept[name], kept) for name, kept in mask.kept.items())
    with pytest.raises(LceError, match="has shape"):
        read.check({"a": torch.zeros(11), "b": torch.zeros(2, 2)})
    with pytest.raises(LceError, match="does not fit"):
        read.check({"a": torch.zeros(10)})


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    with pytest.raises(LceError, match="cannot be read"):
        Mask.load(path)
    path.write_bytes(b"not a mask")
    with pytest.raises(LceError, match="cannot be read"):
        Mask.load(path)


def test_a_file_has_its_parameters_in_order_of_their_names(tmp_path: Path) -> None:
    """Random baselines are drawn parameter by parameter, in this order."""
    kept = {name: torch.tensor([True, False]) for name in ("b.2", "a", "b.10")}
    Mask(kept).save(tmp_path / "m")
    assert list(Mask.load(tmp_path / "m").kept) == ["a", "b.10", "b.2"]
