"""New values for a few weights of a parameter, and writing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


def step(old: Tensor, full: Tensor, alpha: float) -> Tensor:
    """old + α (full − old), worked out in float32 at least, in the dtype of ``old``."""
    wide = torch.promote_types(old.dtype, torch.float32)
    start = old.to(wide)
    return (start + alpha * (full.to(wide) - start)).to(old.dtype)


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
