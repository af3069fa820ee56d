from __future__ import annotations

import pytest
import torch
from subnetworks import SHAPES, subnetwork

from lce.edit.strategies import STRATEGIES
from lce.edit.weight_edit import edit
from lce.foundations.errors import LceError
from lce.localize.controls import uninformed
from lce.localize.weights import mask_based, value_based
from lce.storage.changes import write_values_

TARGET, REFERENCE = subnetwork("target", 0), subnetwork("reference", 1)
SELECTIONS = {"mask": mask_based(TARGET, REFERENCE), "value": value_based(TARGET, REFERENCE, 0.2)}


def naive(strategy: str, b: torch.Tensor, name: str, alpha: float) -> torch.Tensor:
    """The paper's equations on one whole parameter."""
    t, r = TARGET.weights[name], REFERENCE.weights[name]
    m_t, m_r = TARGET.mask.kept[name], REFERENCE.mask.kept[name]
    if strategy in ("interpolation", "extrapolation"):
        return t + alpha * (r - t) * b
    if strategy == "pruning":
        return t - t * b
    before = torch.zeros_like(t)
    before[~m_t] = TARGET.before_pruning[name]
    return (t + before) * m_r


SENSIBLE = [(s, n) for s in STRATEGIES for n in SELECTIONS if (s, n) != ("mask-switch", "value")]


@pytest.mark.parametrize(("strategy", "localization"), SENSIBLE)
@pytest.mark.parametrize("alpha", [-2.0, 0.5, 1.0, 2.0])
def test_every_strategy_against_its_equation(strategy: str, localization: str, alpha: float) -> None:
    selection = SELECTIONS[localization]
    unchanged = {name: tensor.clone() for name, tensor in TARGET.weights.items()}
    changes = edit(strategy, selection, TARGET, REFERENCE, alpha)
    edited = {name: tensor.clone() for name, tensor in TARGET.weights.items()}
    write_values_(edited, changes, "new")
    for name, shape in SHAPES.items():
        b = torch.zeros(torch.Size(shape).numel())
        b[selection.indices[name]] = 1
        torch.testing.assert_close(edited[name], naive(strategy, b.view(shape), name, alpha))
        assert torch.equal(TARGET.weights[name], unchanged[name]), "the input is not mutated"
    write_values_(edited, changes, "old")
    assert all(torch.equal(edited[name], unchanged[name]) for name in SHAPES)


def test_combinations_without_sense_are_refused() -> None:
    with pytest.raises(LceError, match="needs a mask-based selection"):
        edit("mask-switch", SELECTIONS["value"], TARGET, REFERENCE)
    with pytest.raises(LceError, match="unknown 'swap'; known are interpolation"):
        edit("swap", SELECTIONS["mask"], TARGET, REFERENCE)
    with pytest.raises(LceError, match="made for other models"):
        edit("pruning", SELECTIONS["mask"], TARGET, subnetwork("third", 3))
    with pytest.raises(LceError, match="would change no weight"):
        edit("interpolation", SELECTIONS["mask"], TARGET, REFERENCE, alpha=0.0)


def test_uninformed_selections_take_every_strategy_of_their_informed_one() -> None:
    for strategy, localization in SENSIBLE:
        control = uninformed(SELECTIONS[localization], TARGET, REFERENCE, strategy, seed=0)
        assert edit(strategy, control, TARGET, REFERENCE, 2.0)


def test_parameters_that_lie_otherwise_in_memory_are_written_too() -> None:
    name = next(iter(SHAPES))
    changes = edit("pruning", SELECTIONS["mask"], TARGET, REFERENCE)
    plain = {name: TARGET.weights[name].clone()}
    turned = {name: TARGET.weights[name].T.contiguous().T}
    assert not turned[name].is_contiguous()
    for parameters in (plain, turned):
        write_values_(parameters, {name: changes[name]}, "new")
    assert torch.equal(plain[name], turned[name])
