from __future__ import annotations

from pathlib import Path

import pytest
import torch
from subnetworks import SHAPES, subnetwork
from torch import nn

from lce.edit.strategies import STRATEGIES
from lce.edit.weight_edit import WeightEdit
from lce.foundations.errors import LceError
from lce.localize.weights import mask_based, value_based
from lce.patch import Patch
from lce.storage.in_memory import Subnetwork

TARGET, REFERENCE = subnetwork("target", 0), subnetwork("reference", 1)
SELECTIONS = {"mask": mask_based(TARGET, REFERENCE), "value": value_based(TARGET, REFERENCE, 0.2)}
SENSIBLE = [(s, n) for s in STRATEGIES for n in SELECTIONS if n == "mask" or not STRATEGIES[s].needs_masks]


def edit_of(strategy: str, localization: str = "mask", alpha: float = 2.0) -> WeightEdit:
    return WeightEdit(SELECTIONS[localization], TARGET, REFERENCE, strategy, alpha)


def model_of(weights: Subnetwork, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A module that has the parameters of a subnetwork under their names."""
    root = nn.Module()
    for name, values in weights.weights.items():
        *path, last = name.split(".")
        owner = root
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.register_parameter(last, nn.Parameter(values.to(dtype, copy=True)))
    return root


def naive(strategy: str, b: torch.Tensor, name: str, alpha: float) -> torch.Tensor:
    """The paper's equations on one whole parameter."""
    t, r = TARGET.weights[name], REFERENCE.weights[name]
    m_t, m_r = TARGET.mask.kept[name], REFERENCE.mask.kept[name]
    if STRATEGIES[strategy].is_linear:
        return t + alpha * (r - t) * b
    if strategy == "pruning":
        return t - t * b
    before = torch.zeros_like(t)
    before[~m_t] = TARGET.before_pruning[name]
    return (t + before) * m_r


@pytest.mark.parametrize(("strategy", "localization"), SENSIBLE)
@pytest.mark.parametrize("alpha", [-2.0, 0.5, 1.0, 2.0])
def test_every_strategy_against_its_equation(strategy: str, localization: str, alpha: float) -> None:
    edit, model = edit_of(strategy, localization, alpha), model_of(TARGET)
    with edit.applied(model):
        for name, shape in SHAPES.items():
            b = torch.zeros(torch.Size(shape).numel())
            b[edit.selection.indices[name]] = 1
            torch.testing.assert_close(model.get_parameter(name).data, naive(strategy, b.view(shape), name, alpha))
    for name, values in TARGET.weights.items():
        assert torch.equal(model.get_parameter(name), values)


@pytest.mark.parametrize(("strategy", "localization"), SENSIBLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_undone_is_as_it_was_bit_for_bit(strategy: str, localization: str, dtype: torch.dtype) -> None:
    model = model_of(TARGET, dtype)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def breaks() -> None:
        with edit_of(strategy, localization).applied(model):
            assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaks()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.view(torch.uint8), before[name].view(torch.uint8)), name


def test_another_model_than_the_target_is_refused_and_left_alone() -> None:
    other = model_of(REFERENCE)
    with pytest.raises(LceError, match="has other values; it is not the target"), edit_of("linear").applied(other):
        pass
    for name, values in REFERENCE.weights.items():
        assert torch.equal(other.get_parameter(name), values)
    with pytest.raises(LceError, match="has no such parameter"), edit_of("linear").applied(nn.Linear(2, 2)):
        pass


def test_a_parameter_that_lies_otherwise_in_memory_is_edited_too() -> None:
    plain, turned = model_of(TARGET), model_of(TARGET)
    for parameter in turned.parameters():
        parameter.data = parameter.data.T.contiguous().T
    assert not any(parameter.is_contiguous() for parameter in turned.parameters())
    with edit_of("pruning").applied(plain), edit_of("pruning").applied(turned):
        for name in SHAPES:
            assert torch.equal(plain.get_parameter(name), turned.get_parameter(name))


def test_combinations_without_sense_are_refused() -> None:
    with pytest.raises(LceError, match="needs a mask-based selection"):
        edit_of("mask-switch", "value")
    with pytest.raises(LceError, match="unknown 'swap'; known are linear"):
        edit_of("swap")
    with pytest.raises(LceError, match="made for other models"):
        WeightEdit(SELECTIONS["mask"], TARGET, subnetwork("third", 3), "pruning")


def test_an_edit_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    edit = edit_of("linear", alpha=0.0)
    with pytest.raises(LceError, match="would change no weight"):
        edit.check()
    with pytest.raises(LceError, match="would change no weight"), edit.applied(model_of(TARGET)):
        pass
    with pytest.raises(LceError, match="would change no weight"):
        edit.patch(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("strategy", "localization"), SENSIBLE)
@pytest.mark.parametrize("is_matched", [False, True])
def test_random_baselines_go_through_every_strategy(strategy: str, localization: str, is_matched: bool) -> None:
    edit = edit_of(strategy, localization)
    baseline = edit.random_baseline(0, is_matched)
    assert baseline.selection.count == edit.selection.count
    with baseline.applied(model_of(TARGET)):
        pass
    kept, other = TARGET.mask.kept, REFERENCE.mask.kept
    for name in SHAPES:
        population = kept[name] if STRATEGIES[strategy].is_removal else kept[name] | other[name]
        assert bool(population.flatten()[baseline.selection.indices[name]].all())


@pytest.mark.parametrize(("strategy", "localization"), SENSIBLE)
def test_the_patch_makes_the_edit(strategy: str, localization: str, tmp_path: Path) -> None:
    edit, model = edit_of(strategy, localization), model_of(TARGET)
    patch = edit.patch(tmp_path / "p.safetensors", {"note": "tried"})
    assert (patch.provenance["note"], patch.provenance["strategy"]) == ("tried", strategy)
    assert patch.has_full == STRATEGIES[strategy].is_linear
    patched = Patch.load(tmp_path / "p.safetensors").apply(model)
    with edit.applied(model):
        for name in SHAPES:
            assert torch.equal(patched.get_parameter(name), model.get_parameter(name))
    moved = {name: len(change.moved) for name, change in edit.changes()}
    assert patch.moved == moved
