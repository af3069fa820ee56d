from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lce.foundations.errors import LceError
from lce.storage.arrays import Array
from lce.storage.position_codec import decode, encode

POSITIONS = st.lists(st.integers(0, 2**33) | st.integers(0, 300) | st.integers(250, 70_000), min_size=1, unique=True)


@given(POSITIONS)
def test_what_is_encoded_comes_back(positions: list[int]) -> None:
    wanted = np.array(sorted(positions))
    steps, _ = encode(wanted)
    assert np.array_equal(decode(steps, len(wanted), int(wanted[-1]) + 1, "here"), wanted)


def test_by_the_recipe_of_the_documentation() -> None:
    wanted = np.array([0, 1, 254, 255, 509, 511, 2000, 2001])
    steps, code = encode(wanted)
    used = steps != np.iinfo(steps.dtype).max
    assert code == "U8"
    assert np.array_equal((steps.astype(np.int64) + used).cumsum()[used] - 1, wanted)


@pytest.mark.parametrize(
    ("positions", "code", "steps"),
    [
        (np.arange(0, 10_000, 200), "U8", 50),
        (np.arange(0, 10_000, 300), "U8", 34 + 33),
        (np.arange(0, 10_000_000, 20_000), "U16", 500),
        (np.array([5, 10_000_000]), "U32", 2),
        (np.array([2**32]), "U32", 2),
        (np.empty(0, np.int64), "U8", 0),
    ],
)
def test_the_fewest_bytes_are_taken(positions: Array, code: str, steps: int) -> None:
    found, found_code = encode(positions)
    assert (found_code, len(found)) == (code, steps)


@pytest.mark.parametrize(
    ("steps", "count", "size", "message"),
    [
        (np.array([3, 255], dtype=np.uint8), 1, 999, "leads to no position"),
        (np.array([3, 4], dtype=np.uint8), 2, 8, "position 8 lies outside of a tensor of 8 weights"),
        (np.array([3, 4], dtype=np.uint8), 1, 9, "2 positions, 1 were announced"),
        (np.array([3], dtype=np.int64), 1, 9, "must be a vector of uint8"),
        (np.full(1000, 255, dtype=np.uint8), 1, 9, "more steps than 1 positions"),
    ],
)
def test_steps_that_lie_are_refused(steps: Array, count: int, size: int, message: str) -> None:
    with pytest.raises(LceError, match=f"here: .*{message}"):
        decode(steps, count, size, "here")
