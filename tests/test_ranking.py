from __future__ import annotations

import pytest
import torch

from lce.errors import LceError
from lce.ranking import largest, smallest


def everything(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 37, 500, 899, 900])
def test_against_a_stable_sort(dtype: torch.dtype, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator).to(dtype) for name, shape in (("a", (30, 20)), ("b", (300,)))
    }
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()]).abs().float()
    for function, descending in ((smallest, False), (largest, True)):
        chosen = function(tensors, count, everything(tensors))
        expected = torch.zeros(900, dtype=torch.bool)
        expected[flat.sort(stable=True, descending=descending).indices[:count]] = True
        assert torch.equal(torch.cat([mask.flatten() for mask in chosen.values()]), expected)


def test_ties_go_to_the_earlier_position() -> None:
    tensors = {"a": torch.tensor([1.0, -1.0, 2.0]), "b": torch.tensor([[1.0, 0.0], [-1.0, -0.0]])}
    chosen = smallest(tensors, 4, everything(tensors))
    assert chosen["a"].tolist() == [True, True, False]
    assert chosen["b"].tolist() == [[False, True], [False, True]]


def test_only_among_the_allowed() -> None:
    tensors = {"a": torch.arange(6.0)}
    allowed = {"a": torch.tensor([False, True, True, False, True, True])}
    assert largest(tensors, 2, allowed)["a"].nonzero().flatten().tolist() == [4, 5]
    assert smallest(tensors, 2, allowed)["a"].nonzero().flatten().tolist() == [1, 2]
    with pytest.raises(LceError, match="cannot choose 5 of 4"):
        smallest(tensors, 5, allowed)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    tensors = {"a": torch.tensor([1.0, bad])}
    with pytest.raises(LceError, match="not finite"):
        smallest(tensors, 1, everything(tensors))
