from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lce.errors import LceError
from lce.indices import decode, encode

POSITIONS = st.lists(st.integers(0, 2**33) | st.integers(0, 300) | st.integers(250, 70_000), min_size=1, unique=True)


@given(POSITIONS)
def test_what_is_encoded_comes_back(positions: list[int]) -> None:
    wanted = torch.tensor(sorted(positions))
    if len(steps := encode(wanted)) < 100_000:
        assert torch.equal(decode(steps, len(wanted), int(wanted[-1]) + 1, "here"), wanted)


def test_by_the_recipe_of_the_documentation() -> None:
    wanted = torch.tensor([0, 1, 254, 255, 509, 511, 2000, 2001])
    steps = encode(wanted)
    most = torch.iinfo(steps.dtype).max
    ends = (steps.long() + (steps != most)).cumsum(0)
    assert steps.dtype == torch.uint8
    assert torch.equal(ends[steps != most] - 1, wanted)


@pytest.mark.parametrize(
    ("positions", "dtype", "steps"),
    [
        (torch.arange(0, 10_000, 200), torch.uint8, 50),
        (torch.arange(0, 10_000, 300), torch.uint8, 34 + 33),
        (torch.arange(0, 10_000_000, 20_000), torch.uint16, 500),
        (torch.tensor([5, 10_000_000]), torch.uint32, 2),
        (torch.tensor([2**32]), torch.uint32, 2),
        (torch.empty(0, dtype=torch.int64), torch.uint8, 0),
    ],
)
def test_the_fewest_bytes_are_taken(positions: torch.Tensor, dtype: torch.dtype, steps: int) -> None:
    assert (encode(positions).dtype, len(encode(positions))) == (dtype, steps)


@pytest.mark.parametrize(
    ("steps", "count", "size", "message"),
    [
        (torch.tensor([3, 255], dtype=torch.uint8), 1, 999, "leads to no position"),
        (torch.tensor([3, 4], dtype=torch.uint8), 2, 8, "position 8 lies outside of a tensor of 8 weights"),
        (torch.tensor([3, 4], dtype=torch.uint8), 1, 9, "2 positions, 1 were announced"),
        (torch.tensor([3], dtype=torch.int64), 1, 9, "must be a vector of uint8"),
        (torch.full((1000,), 255, dtype=torch.uint8), 1, 9, "more steps than 1 positions"),
    ],
)
def test_steps_that_lie_are_refused(steps: torch.Tensor, count: int, size: int, message: str) -> None:
    with pytest.raises(LceError, match=f"here: .*{message}"):
        decode(steps, count, size, "here")
