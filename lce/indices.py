"""Positions of a few weights among many, in little more than a byte each.

Sorted, distinct positions are stored as steps: the number of weights skipped since the previous position. A step takes
the smallest unsigned integer; its largest value says "skip so many, here is no position", so that one long gap does not
make all steps wide. Of uint8, uint16 and uint32 whichever gives the fewest bytes is taken. To read them:

    ends = (steps.long() + (steps != MAX)).cumsum(0)        # MAX: largest value of the steps' type
    positions = ends[steps != MAX] - 1

So positions are sorted and distinct whatever the file says, and none is negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lce.errors import LceError

WIDTHS = (torch.uint8, torch.uint16, torch.uint32)


def encode(positions: Tensor) -> Tensor:
    """Steps of sorted, distinct ``positions`` (int64, any number of them)."""
    if not len(positions):
        return torch.empty(0, dtype=torch.uint8)
    skipped = positions.diff(prepend=positions.new_tensor([-1])).sub_(1)
    longest = int(skipped.max())
    width = min(WIDTHS, key=lambda width: width.itemsize * (len(positions) + _fillers(skipped, longest, width)))
    most = torch.iinfo(width).max
    if longest < most:
        return skipped.to(width)
    fillers = skipped // most
    steps = torch.full((len(positions) + int(fillers.sum()),), most)
    steps[fillers.cumsum(0) + torch.arange(len(positions))] = skipped % most
    return steps.to(width)


def _fillers(skipped: Tensor, longest: int, width: torch.dtype) -> int:
    """How many steps without a position ``width`` takes."""
    most = torch.iinfo(width).max
    return 0 if longest < most else int((skipped.masked_select(skipped >= most) // most).sum())


def decode(steps: Tensor, count: int, size: int, where: str) -> Tensor:
    """The ``count`` positions (int64), checked to lie in a tensor of ``size`` weights.

    Raises:
        LceError: ``steps`` have another type or hold another number of positions, or one lies outside.
    """
    if steps.ndim != 1 or steps.dtype not in WIDTHS:
        raise LceError(f"{where}: steps must be a vector of uint8, uint16 or uint32, not {steps.dtype}")
    most = torch.iinfo(steps.dtype).max
    if len(steps) > count + size // most + 1:
        raise LceError(f"{where}: more steps than {count:,} positions in a tensor of {size:,} weights can take")
    wide = steps.long()
    if len(steps) and wide[-1] == most:
        raise LceError(f"{where}: the last step leads to no position")
    if not len(steps) or wide.max() < most:
        positions = wide.add_(1).cumsum_(0).sub_(1)
    else:
        is_position = wide != most
        positions = wide.add_(is_position).cumsum_(0).masked_select(is_position).sub_(1)
    if len(positions) != count:
        raise LceError(f"{where}: {len(positions):,} positions, {count:,} were announced")
    if count and int(positions[-1]) >= size:
        raise LceError(f"{where}: position {int(positions[-1]):,} lies outside of a tensor of {size:,} weights")
    return positions
