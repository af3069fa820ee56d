"""The strategies: what an edit makes of the selected weights, as pure functions on their values.

θ is a subnetwork's value, zero where pruned; of a dense model, its value. With the selection b:
linear, θ_t + α (θ_r − θ_t), which is interpolation (eq. 3) for 0 ≤ α ≤ 1 and extrapolation (eq. 4) for any other α;
pruning, eq. 5: 0; mask switch, eq. 6: kept exactly where the reference keeps, a weight that the target had
pruned coming back with its value from before pruning. (Lutz et al. 2024, section 3.3.)

Settings are checked against this table before anything is loaded, so importing it does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from lce.foundations.errors import LceError

if TYPE_CHECKING:
    from torch import Tensor


class SelectedValues(NamedTuple):
    """The selected weights of one parameter, all of shape (n,)."""

    target: Tensor
    reference: Tensor
    kept_by_reference: Tensor
    target_before_pruning: Tensor


def linear(values: SelectedValues, alpha: float) -> Tensor:
    from lce.storage.changes import step

    return step(values.target, values.reference, alpha)


def pruning(values: SelectedValues, alpha: float) -> Tensor:
    return values.target.new_zeros(values.target.shape)


def mask_switch(values: SelectedValues, alpha: float) -> Tensor:
    return values.target_before_pruning.where(values.kept_by_reference, 0)


@dataclass(frozen=True)
class Strategy:
    """One way to edit.

    Attributes:
        function: new values from those selected and the strength α.
        is_linear: whether it is linear in α; the others take no α.
        needs_masks: whether it works on mask-based selections only.
        is_removal: whether it sets weights to zero. Its random baselines are drawn from the weights that the target
            keeps, those of the others from the weights that target or reference keep.
        strengths: the least and the greatest α of the paper's interpolation; the others' are unbounded.
        is_outside: whether α has to lie outside of ``strengths``, not within.
        abbreviation: the paper's; the linear strategy's goes by α.
    """

    function: Callable[[SelectedValues, float], Tensor]
    is_linear: bool = False
    needs_masks: bool = False
    is_removal: bool = False
    strengths: tuple[float, float] | None = None
    is_outside: bool = False
    abbreviation: str = ""


BETWEEN = (0.0, 1.0)
STRATEGIES = {
    "linear": Strategy(linear, is_linear=True),
    "interpolation": Strategy(linear, is_linear=True, strengths=BETWEEN, abbreviation="IP"),
    "extrapolation": Strategy(linear, is_linear=True, strengths=BETWEEN, is_outside=True, abbreviation="EP"),
    "pruning": Strategy(pruning, is_removal=True, abbreviation="PR"),
    "mask-switch": Strategy(mask_switch, needs_masks=True, abbreviation="SW"),
}
"""Interpolation and extrapolation are the paper's names for the linear strategy within and outside of 0 ≤ α ≤ 1."""


def find(name: str) -> Strategy:
    """The strategy of this name; LceError if there is none."""
    if name not in STRATEGIES:
        raise LceError(f"strategy: unknown {name!r}; known are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def abbreviation(name: str, alpha: float) -> str:
    """What the paper calls a strategy in short: the linear one IP or EP, by ``alpha``; PR; SW."""
    if find(name).is_linear:
        name = "interpolation" if BETWEEN[0] <= alpha <= BETWEEN[1] else "extrapolation"
    return STRATEGIES[name].abbreviation


def checked_strengths(name: str, alphas: Sequence[float]) -> list[float]:
    """The distinct ``alphas`` of an edit by strategy ``name``; [1] for a strategy that takes none.

    Raises:
        LceError: there is no such strategy, one is not finite or outside of its range, or none but 0 is left, which
            stands for the unedited target.
    """
    strategy = find(name)
    if not strategy.is_linear:
        return [1.0]
    if not all(map(isfinite, alphas)):
        raise LceError(f"alpha: expected finite numbers, got {list(alphas)}")
    if not any(alphas):
        raise LceError("alpha: 0 changes nothing; give at least one other value")
    for alpha in filter(None, alphas):
        if strategy.strengths and (strategy.strengths[0] <= alpha <= strategy.strengths[1]) == strategy.is_outside:
            least, most = strategy.strengths
            where = f"below {least:g} or above {most:g}" if strategy.is_outside else f"from {least:g} to {most:g}"
            raise LceError(f"alpha: {name} takes α {where}, got {alpha:g}; the strategy linear takes any α")
    return list(dict.fromkeys(alphas))
