"""Edits: what happens to the selected weights, as pure functions on their values.

θ is a subnetwork's value, zero where pruned. With the selection b:
interpolation (0 ≤ α ≤ 1) and extrapolation (any other α), eq. 3 and 4: θ_t + α (θ_r − θ_t);
pruning, eq. 5: 0; mask switch, eq. 6: kept exactly where the reference keeps, a weight that the target had
pruned coming back with its value from before pruning. (Lutz et al. 2024, section 3.3.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lce.diff import Selection
from lce.errors import LceError
from lce.subnetwork import Subnetwork


class SelectedValues(NamedTuple):
    """The selected weights of one parameter, all of shape (n,)."""

    target: Tensor
    reference: Tensor
    kept_by_reference: Tensor
    target_before_pruning: Tensor


Edit = Callable[[SelectedValues, float], Tensor]


def interpolation(values: SelectedValues, alpha: float) -> Tensor:
    return values.target + alpha * (values.reference - values.target)


def pruning(values: SelectedValues, alpha: float) -> Tensor:
    return torch.zeros_like(values.target)


def mask_switch(values: SelectedValues, alpha: float) -> Tensor:
    return torch.where(values.kept_by_reference, values.target_before_pruning, 0)


STRATEGIES: dict[str, Edit] = {
    "interpolation": interpolation,
    "extrapolation": interpolation,
    "pruning": pruning,
    "mask-switch": mask_switch,
}
"""Interpolation and extrapolation are one formula under two names; pruning and mask switch take no α."""

LINEAR = ("interpolation", "extrapolation")


@dataclass(frozen=True)
class Change:
    """New values for some weights of one parameter: sorted flat indices, old and new values, all of shape (n,)."""

    indices: Tensor
    old: Tensor
    new: Tensor
    shape: tuple[int, ...]


Changes = dict[str, Change]


def edit(strategy: str, selection: Selection, target: Subnetwork, reference: Subnetwork, alpha: float = 1.0) -> Changes:
    """What ``strategy`` makes of the selected weights of ``target``; nothing is changed in place.

    Raises:
        LceError: the strategy is unknown or makes no sense for the selection, the selection was made for
            other models, α leads out of the numbers' range, or no weight would change.
    """
    changes = changed_values(strategy, selection, target, reference, alpha)
    if not changes:
        raise LceError(f"the edit ({strategy}, α = {alpha:g}) would change no weight of {target.folder}")
    return changes


def changed_values(
    strategy: str, selection: Selection, target: Subnetwork, reference: Subnetwork, alpha: float = 1.0
) -> Changes:
    """As `edit`, but for a random selection, in which nothing may change."""
    if strategy not in STRATEGIES:
        raise LceError(f"strategy: unknown {strategy!r}; known are {', '.join(STRATEGIES)}")
    if strategy == "mask-switch" and not selection.localization.endswith("mask"):
        raise LceError(
            "strategy mask-switch: needs a mask-based selection; among weights kept in both there is nothing to switch"
        )
    if (selection.target, selection.reference) != (target.fingerprint, reference.fingerprint):
        raise LceError(f"the selection was made for other models than {target.folder} and {reference.folder}")
    changes = {}
    for name, indices in selection.indices.items():
        values = _selected(name, indices, target, reference)
        new = STRATEGIES[strategy](values, alpha).to(values.target.dtype)
        if not bool(torch.isfinite(new).all()):
            raise LceError(f"alpha: {alpha:g} gives values in {name} that are not finite")
        changed = new != values.target
        if changed.any():
            shape = selection.shapes[name]
            changes[name] = Change(indices[changed], values.target[changed], new[changed], shape)
    return changes


def _selected(name: str, indices: Tensor, target: Subnetwork, reference: Subnetwork) -> SelectedValues:
    return SelectedValues(
        target=target.weights[name].flatten()[indices],
        reference=reference.weights[name].flatten()[indices],
        kept_by_reference=reference.mask.kept[name].flatten()[indices],
        target_before_pruning=target.values_before_pruning(name)[indices],
    )


@torch.no_grad()
def write_values_(parameters: Mapping[str, Tensor], changes: Changes, which: str) -> None:
    """Write the ``which`` ("old" or "new") values of ``changes`` into ``parameters``, in place."""
    for name, change in changes.items():
        parameter = parameters[name]
        values: Tensor = getattr(change, which)
        flat = parameter.view(-1)
        flat[change.indices.to(flat.device)] = values.to(flat.device, flat.dtype)
