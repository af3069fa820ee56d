from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lce.foundations.errors import LceError
from lce.storage.top_k import cutoff, keys, smallest


def everything(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 37, 500, 899, 900])
def test_smallest_against_a_stable_sort(dtype: torch.dtype, count: int) -> None:
    tensors = drawn(dtype)
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()]).abs().float()
    chosen = smallest(tensors, count, everything(tensors))
    expected = torch.zeros(900, dtype=torch.bool)
    expected[flat.sort(stable=True).indices[:count]] = True
    assert torch.equal(torch.cat([mask.flatten() for mask in chosen.values()]), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("count", [1, 37, 500, 899, 900])
@pytest.mark.parametrize(("many", "margin"), [(901, 0.005), (1, 0.3), (1, 0.005), (1, 0.0)])
def test_cutoff_against_a_sort(
    dtype: torch.dtype, largest: bool, count: int, many: int, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By histograms, by a sample that tells enough, and by one that does not."""
    monkeypatch.setattr("lce.storage.top_k.MANY", many)
    monkeypatch.setattr("lce.storage.top_k.MARGIN", margin)
    tensors = drawn(dtype)

    def counted(work: Callable[[str, torch.Tensor], Any], sampled: bool = False) -> Iterator[Any]:
        return (work(name, keys(tensor)[:: 5 if sampled else 1]) for name, tensor in tensors.items())

    cut = cutoff(counted, count, 900, largest)
    every = torch.cat([keys(tensor) for tensor in tensors.values()])
    beyond = every > cut.threshold if largest else every < cut.threshold
    assert cut.threshold == int(every.sort(descending=largest).values[count - 1])
    assert int(beyond.sum()) + cut.ties == count
    assert cut.tied == int((every == cut.threshold).sum())


@pytest.mark.parametrize("part", [1, 7, 300, 600])
def test_smallest_in_parts_of_any_size(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {name: tensor.round(decimals=1) for name, tensor in drawn(torch.float32).items()}
    allowed = {name: tensor > -1 for name, tensor in tensors.items()}
    whole = smallest(tensors, 250, allowed)
    monkeypatch.setattr("lce.storage.top_k.PART", part)
    for name, chosen in smallest(tensors, 250, allowed).items():
        assert torch.equal(chosen, whole[name])
    magnitudes = torch.cat([tensor[allowed[name]].abs().flatten() for name, tensor in tensors.items()])
    most = max(float(tensors[name][chosen].abs().max()) for name, chosen in whole.items())
    assert most == magnitudes.sort().values[249]
    assert sum(int(chosen.sum()) for chosen in whole.values()) == 250


def drawn(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=random).to(dtype) for name, shape in (("a", (30, 20)), ("b", (300,)))}


def test_ties_go_to_the_earlier_position() -> None:
    tensors = {"a": torch.tensor([1.0, -1.0, 2.0]), "b": torch.tensor([[1.0, 0.0], [-1.0, -0.0]])}
    chosen = smallest(tensors, 4, everything(tensors))
    assert chosen["a"].tolist() == [True, True, False]
    assert chosen["b"].tolist() == [[False, True], [False, True]]


def test_only_among_the_allowed() -> None:
    tensors = {"a": torch.arange(6.0)}
    allowed = {"a": torch.tensor([False, True, True, False, True, True])}
    assert smallest(tensors, 2, allowed)["a"].nonzero().flatten().tolist() == [1, 2]
    with pytest.raises(LceError, match="cannot choose 5 of 4"):
        smallest(tensors, 5, allowed)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    tensors = {"a": torch.tensor([1.0, bad])}
    with pytest.raises(LceError, match="not finite"):
        smallest(tensors, 1, everything(tensors))
