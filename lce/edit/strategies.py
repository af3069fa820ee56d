"""Edits: what happens to the selected weights, as pure functions on their values.

θ is a subnetwork's value, zero where pruned; of a dense model, its value. With the selection b:
interpolation (0 ≤ α ≤ 1) and extrapolation (any other α), eq. 3 and 4: θ_t + α (θ_r − θ_t);
pruning, eq. 5: 0; mask switch, eq. 6: kept exactly where the reference keeps, a weight that the target had
pruned coming back with its value from before pruning. (Lutz et al. 2024, section 3.3.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lce.storage.changes import step


class SelectedValues(NamedTuple):
    """The selected weights of one parameter, all of shape (n,)."""

    target: Tensor
    reference: Tensor
    kept_by_reference: Tensor
    target_before_pruning: Tensor


Edit = Callable[[SelectedValues, float], Tensor]


def interpolation(values: SelectedValues, alpha: float) -> Tensor:
    return step(values.target, values.reference, alpha)


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
