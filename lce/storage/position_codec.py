"""Positions of a few weights among many, in little more than a byte each.

Sorted, distinct positions are stored as steps: the number of weights skipped since the previous position. A step takes
the smallest unsigned integer; its largest value says "skip so many, here is no position", so that one long gap does not
make all steps wide. Of uint8, uint16 and uint32 whichever gives the fewest bytes is taken. To read them:

    used = steps != MAX                                     # MAX: largest value of the steps' type
    positions = (steps.astype(int64) + used).cumsum()[used] - 1

So positions are sorted and distinct whatever the file says, and none is negative.
"""

from typing import Any

import numpy as np

from lce.foundations.errors import LceError
from lce.storage.arrays import Array

WIDTHS: dict[str, Any] = {"U8": np.uint8, "U16": np.uint16, "U32": np.uint32}


def encode(positions: Array) -> tuple[Array, str]:
    """Steps of sorted, distinct ``positions`` (int64, any number of them), and the code of their type."""
    if not len(positions):
        return np.empty(0, np.uint8), "U8"
    skipped = np.diff(positions, prepend=-1)
    skipped -= 1
    longest = int(skipped.max())
    code = min(WIDTHS, key=lambda code: (len(positions) + _fillers(skipped, longest, _most(code))) * _width(code))
    most = _most(code)
    if longest < most:
        return skipped.astype(WIDTHS[code]), code
    fillers = skipped // most
    steps = np.full(len(positions) + int(fillers.sum()), most)
    steps[fillers.cumsum() + np.arange(len(positions))] = skipped % most
    return steps.astype(WIDTHS[code]), code


def _most(code: str) -> int:
    return int(np.iinfo(WIDTHS[code]).max)


def _width(code: str) -> int:
    return np.dtype(WIDTHS[code]).itemsize


def _fillers(skipped: Array, longest: int, most: int) -> int:
    """How many steps without a position there are where ``most`` is the largest value."""
    return 0 if longest < most else int((skipped[skipped >= most] // most).sum())


def decode(steps: Array, count: int, size: int, where: str) -> Array:
    """The ``count`` positions (int64), checked to lie in a tensor of ``size`` weights.

    Raises:
        LceError: ``steps`` have another type or hold another number of positions, or one lies outside.
    """
    if steps.ndim != 1 or steps.dtype not in map(np.dtype, WIDTHS.values()):
        raise LceError(f"{where}: steps must be a vector of uint8, uint16 or uint32, not {steps.dtype}")
    most = int(np.iinfo(steps.dtype).max)
    if len(steps) > count + size // most + 1 or steps.nbytes > 4 * (count + size // 0xFFFFFFFF + 1):
        raise LceError(f"{where}: more steps than {count:,} positions in a tensor of {size:,} weights can take")
    if len(steps) and steps[-1] == most:
        raise LceError(f"{where}: the last step leads to no position")
    positions = steps.astype(np.int64)
    if not len(steps) or steps.max() < most:
        positions += 1
        np.cumsum(positions, out=positions)
    else:
        used = steps != most
        positions += used
        positions = positions.cumsum()[used]
    positions -= 1
    if len(positions) != count:
        raise LceError(f"{where}: {len(positions):,} positions, {count:,} were announced")
    if count and int(positions[-1]) >= size:
        raise LceError(f"{where}: position {int(positions[-1]):,} lies outside of a tensor of {size:,} weights")
    return positions
