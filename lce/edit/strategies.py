"""Edits: what happens to the selected weights, as pure functions on their values.

θ is a subnetwork's value, zero where pruned; of a dense model, its value. With the selection b:
interpolation (0 ≤ α ≤ 1) and extrapolation (any other α), eq. 3 and 4: θ_t + α (θ_r − θ_t);
pruning, eq. 5: 0; mask switch, eq. 6: kept exactly where the reference keeps, a weight that the target had
pruned coming back with its value from before pruning. (Lutz et al. 2024, section 3.3.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lce.config import LINEAR
from lce.foundations.errors import LceError
from lce.localize.selection import Selection
from lce.storage.model_weights import ModelWeights, Piece


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


def step(old: Tensor, full: Tensor, alpha: float) -> Tensor:
    """old + α (full − old), worked out in float32 at least, in the dtype of ``old``."""
    wide = torch.promote_types(old.dtype, torch.float32)
    start = old.to(wide)
    return (start + alpha * (full.to(wide) - start)).to(old.dtype)


STRATEGIES: dict[str, Edit] = {
    "interpolation": interpolation,
    "extrapolation": interpolation,
    "pruning": pruning,
    "mask-switch": mask_switch,
}
"""Interpolation and extrapolation are one formula under two names; pruning and mask switch take no α."""


@dataclass(frozen=True)
class Change:
    """New values for some weights of one parameter, all of shape (n,).

    Attributes:
        indices: sorted flat positions (int64).
        new, old: values after and before the edit; a patch may do without the old ones.
        full: values at α = 1, the reference's; only of a linear edit.
        shape: the parameter's.
    """

    indices: Tensor
    new: Tensor
    shape: tuple[int, ...]
    old: Tensor | None = None
    full: Tensor | None = None

    def only(self, chosen: Tensor) -> Change:
        """The same for the weights that are ``chosen`` (bool, (n,))."""
        if bool(chosen.all()):
            return self
        parts = (None if part is None else part.masked_select(chosen) for part in (self.old, self.full))
        return Change(self.indices.masked_select(chosen), self.new.masked_select(chosen), self.shape, *parts)

    @property
    def moved(self) -> Tensor:
        """Positions of the weights that change at this α: a linear edit's step may be lost in rounding."""
        return self.indices if self.old is None else self.indices[self.new != self.old]

    @property
    def moves(self) -> bool:
        """Whether any weight changes at this α."""
        return self.old is None or bool((self.new != self.old).any())


Changes = Mapping[str, Change]


def edit(
    strategy: str, selection: Selection, target: ModelWeights, reference: ModelWeights, alpha: float = 1.0
) -> dict[str, Change]:
    """What ``strategy`` makes of the selected weights of ``target``; nothing is changed in place.

    Raises:
        LceError: the strategy is unknown or makes no sense for the selection, the selection was made for
            other models, α leads out of the numbers' range, or no weight would change.
    """
    changes = dict(changed_values(strategy, selection, target, reference, alpha))
    if not any(change.moves for change in changes.values()):
        raise LceError(nothing_changed(strategy, alpha, target))
    return changes


def nothing_changed(strategy: str, alpha: float, target: ModelWeights) -> str:
    return f"the edit ({strategy}, α = {alpha:g}) would change no weight of {target.folder}"


def changed_values(
    strategy: str, selection: Selection, target: ModelWeights, reference: ModelWeights, alpha: float = 1.0
) -> Iterator[tuple[str, Change]]:
    """As `edit`, parameter by parameter as they are asked for, and without the demand that anything changes."""
    check_edit(strategy, selection, target, reference)
    for name in selection.shapes:
        if selection.counts[name]:
            change = changed_parameter(strategy, name, selection, target, reference, alpha)
            if len(change.indices):
                yield name, change


def check_edit(strategy: str, selection: Selection, target: ModelWeights, reference: ModelWeights) -> None:
    """Raises LceError unless ``strategy`` can edit ``target`` at ``selection``."""
    if strategy not in STRATEGIES:
        raise LceError(f"strategy: unknown {strategy!r}; known are {', '.join(STRATEGIES)}")
    if strategy == "mask-switch" and not selection.localization.endswith("mask"):
        raise LceError(
            "strategy mask-switch: needs a mask-based selection; among weights kept in both there is nothing to switch"
        )
    if (selection.target, selection.reference) != (target.fingerprint, reference.fingerprint):
        raise LceError(f"the selection was made for other models than {target.folder} and {reference.folder}")


def changed_parameter(
    strategy: str, name: str, selection: Selection, target: ModelWeights, reference: ModelWeights, alpha: float
) -> Change:
    """What ``strategy`` makes of one parameter: only weights that it moves, or would move at another α.

    Raises:
        LceError: a value is not finite.
    """

    indices = selection.indices[name]
    old = target.at(name, indices)
    full = reference.at(name, indices).to(old.dtype)
    kept, before = full, old
    if strategy == "mask-switch":
        kept = reference.at(name, indices, lambda piece: _kept(reference, piece))
        if selection.localization == "mask" and bool(
            (target.at(name, indices, lambda p: _kept(target, p)) == kept).any()
        ):
            raise LceError(f"{name}: the selection was made with other masks; give the sparsity that it was made with")
        before = target.at(name, indices, target.values_before_pruning)
    new = STRATEGIES[strategy](SelectedValues(old, full, kept, before), alpha).to(old.dtype)
    if not bool(torch.isfinite(new).all()):
        raise LceError(f"alpha: {alpha:g} gives values in {name} that are not finite")
    if strategy in LINEAR:
        return Change(indices, new, selection.shapes[name], old, full).only((new != old) | (full != old))
    return Change(indices, new, selection.shapes[name], old).only(new != old)


def _kept(model: ModelWeights, piece: Piece) -> Tensor:
    kept = model.kept(piece)
    return torch.ones(piece.size, dtype=torch.bool) if kept is None else kept


@torch.no_grad()
def write_values_(parameters: Mapping[str, Tensor], changes: Changes, which: str) -> None:
    """Write the ``which`` ("old" or "new") values of ``changes`` into ``parameters``, in place."""
    for name, change in changes.items():
        parameter = parameters[name]
        values: Tensor = getattr(change, which)
        indices, values = change.indices.to(parameter.device), values.to(parameter.device, parameter.dtype)
        if parameter.is_contiguous():
            parameter.view(-1)[indices] = values
        else:
            parameter[torch.unravel_index(indices, parameter.shape)] = values
