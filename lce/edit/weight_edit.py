"""An edit of weights: tried on a model and undone, or kept as a patch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lce.edit.strategies import SelectedValues, Strategy, find
from lce.foundations.errors import LceError
from lce.localize.contrast import Contrast
from lce.localize.controls import random_baseline
from lce.localize.selection import Selection
from lce.patch import Patch
from lce.patch.writer import Made, made_of, write_patch
from lce.storage.changes import Change, values_at, write_at_
from lce.storage.checkpoint import aligned, canonical
from lce.storage.model_weights import Chunk, ModelWeights


@dataclass(frozen=True)
class WeightEdit:
    """What a strategy makes of the selected weights of ``target``; neither of the two models is changed.

    Attributes:
        strategy: a name in `STRATEGIES`.
        alpha: the strength α of a linear strategy.
        may_be_void: whether it is allowed to change nothing, as a random baseline is.

    Raises:
        LceError: the strategy is unknown or makes no sense for the selection, or the selection was made for other
            models.
    """

    selection: Selection
    target: ModelWeights
    reference: ModelWeights
    strategy: str = "linear"
    alpha: float = 1.0
    may_be_void: bool = False

    def __post_init__(self) -> None:
        selection = self.selection
        if self._strategy.needs_masks and not selection.localization.endswith("mask"):
            raise LceError(
                f"strategy {self.strategy}: needs a mask-based selection; among weights kept in both there is nothing "
                "to switch"
            )
        if (selection.target, selection.reference) != (self.target.fingerprint, self.reference.fingerprint):
            raise LceError(
                f"the selection was made for other models than {self.target.folder} and {self.reference.folder}"
            )

    @cached_property
    def _strategy(self) -> Strategy:
        return find(self.strategy)

    def random_baseline(self, seed: int, is_matched: bool = False) -> WeightEdit:
        """The same edit of as many weights drawn at random: see `lce.localize.controls.random_baseline`."""
        if self._strategy.is_removal:
            population = {name: self.target.all_kept(name) for name in self.selection.shapes}
        else:
            population = {name: self.reference.may_differ(self.target, name) for name in self.selection.shapes}
        drawn = random_baseline(self.selection, population, seed, is_matched)
        return replace(self, selection=drawn, may_be_void=True)

    def changes(self) -> Iterator[tuple[str, Change]]:
        """Parameter by parameter, the weights that it moves, or would move at another α.

        Raises:
            LceError: the selection was made with other masks, or α leads out of the numbers' range.
        """
        for name in self.selection.shapes:
            if self.selection.counts[name]:
                change = self._change(name)
                if len(change.indices):
                    yield name, change

    def _change(self, name: str) -> Change:
        selection, target, reference = self.selection, self.target, self.reference
        indices = selection.indices[name]
        old = target.at(name, indices)
        exact = reference.at(name, indices)
        full = exact.to(old.dtype)
        kept, before = full, old
        if self._strategy.needs_masks:
            kept = reference.at(name, indices, lambda chunk: _kept(reference, chunk))
            is_informed = selection.localization == "mask"
            if is_informed and bool((target.at(name, indices, lambda c: _kept(target, c)) == kept).any()):
                raise LceError(
                    f"{name}: the selection was made with other masks; give the sparsity that it was made with"
                )
            before = target.at(name, indices, target.values_before_pruning)
        new = self._strategy.function(SelectedValues(old, full, kept, before), self.alpha).to(old.dtype)
        if not bool(torch.isfinite(new).all()):
            raise LceError(f"alpha: {self.alpha:g} gives values in {name} that are not finite")
        if self._strategy.is_linear and isinstance(reference, Contrast) and exact.dtype != full.dtype:
            # What is added is small: rounded to the weights' type at α = 1, it could not be scaled to another α.
            new = self._strategy.function(SelectedValues(old, exact, kept, before), self.alpha)
            return Change(indices, new, selection.shapes[name], old).only(new != old)
        if self._strategy.is_linear:
            return Change(indices, new, selection.shapes[name], old, full).only((new != old) | (full != old))
        return Change(indices, new, selection.shapes[name], old).only(new != old)

    @property
    def _nothing_changed(self) -> str:
        return f"the edit ({self.strategy}, α = {self.alpha:g}) would change no weight of {self.target.folder}"

    def check(self) -> None:
        """Raises LceError if it would change nothing."""
        if not any(change.moves for _, change in self.changes()) and not self.may_be_void:
            raise LceError(self._nothing_changed)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block, ``model`` is edited in place; after it, in any case, it is as it was, bit for bit.

        Raises:
            LceError: ``model`` is not the target, or the edit would change nothing.
        """
        parameters = {canonical(name): parameter for name, parameter in model.named_parameters()}
        names = {own: name for name, own in aligned(parameters, self.selection.shapes).items()}
        undo: list[tuple[Tensor, Tensor, Tensor]] = []
        moves = False
        try:
            for name, change in self.changes():
                parameter = parameters.get(names.get(name, name))
                if parameter is None or tuple(parameter.shape) != change.shape:
                    raise LceError(f"{name}: the model has no such parameter; it is not the target of this edit")
                before = values_at(parameter, change.indices)
                if change.old is None or not torch.equal(before, change.old.to(before)):
                    raise LceError(f"{name}: the model has other values; it is not the target of this edit")
                undo.append((parameter, change.indices, before))
                write_at_(parameter, change.indices, change.new)
                moves = moves or change.moves
            if not moves and not self.may_be_void:
                raise LceError(self._nothing_changed)
            yield
        finally:
            for changed, indices, before in undo:
                write_at_(changed, indices, before)

    def patch(
        self,
        path: str | Path,
        provenance: Mapping[str, Any] | None = None,
        keep_old: bool = True,
        keep_full: bool = True,
    ) -> Patch:
        """Write to ``path`` the patch that makes this edit to the target.

        Args:
            provenance: what the patch is to say of where it comes from, beside localisation, strategy and α.
            keep_old: with the old values, so that the patch can be reverted.
            keep_full: of a linear edit, with the values at α = 1, so that the patch can be scaled to another α.

        Raises:
            LceError: nothing would change, or ``path`` cannot be written; nothing is left there then.
        """

        def made(name: str) -> Made | None:
            change = self._change(name)
            if not len(change.indices):
                return None
            after = self.target.digest(name, change.indices, change.new)
            return made_of(change, self.target.digest(name), after)

        selection = self.selection
        each = self.target.nbytes / selection.size
        sizes = {name: round(each * prod(shape)) for name, shape in selection.shapes.items() if selection.counts[name]}
        about = {"localization": selection.localization, "strategy": self.strategy, "alpha": self.alpha}
        return write_patch(
            path, made, sizes, {**(provenance or {}), **about}, keep_old, keep_full, self._nothing_changed
        )


def _kept(model: ModelWeights, chunk: Chunk) -> Tensor:
    kept = model.kept(chunk)
    return torch.ones(chunk.size, dtype=torch.bool) if kept is None else kept
