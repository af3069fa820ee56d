"""An edit of weights: tried on a model and undone, or kept as a patch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lce.config import LINEAR
from lce.edit.strategies import STRATEGIES, SelectedValues
from lce.foundations.errors import LceError
from lce.localize.selection import Selection
from lce.storage.changes import Change
from lce.storage.model_weights import Chunk, ModelWeights


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
        kept = reference.at(name, indices, lambda chunk: _kept(reference, chunk))
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


def _kept(model: ModelWeights, chunk: Chunk) -> Tensor:
    kept = model.kept(chunk)
    return torch.ones(chunk.size, dtype=torch.bool) if kept is None else kept
