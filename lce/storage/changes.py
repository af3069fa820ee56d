"""New values for a few weights of a parameter, and writing them. Torch is imported only by what needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar("Values", bound=Any)
Converted = TypeVar("Converted", bound=Any)


@dataclass(frozen=True)
class Change(Generic[Values]):
    """New values for some weights of one parameter: torch's tensors or numpy's arrays, all of shape (n,).

    Attributes:
        indices: sorted flat positions (int64).
        new, old: values after and before the edit, in numpy the bits of bfloat16; a patch may do without the old ones.
        full: values at α = 1, the reference's; only of an edit that is linear in α.
        shape: the parameter's.
    """

    indices: Values
    new: Values
    shape: tuple[int, ...]
    old: Values | None = None
    full: Values | None = None

    def each(self, convert: Callable[[Values], Converted]) -> Change[Converted]:
        """The same change with its positions and values replaced by what ``convert`` makes of them."""
        old, full = (None if part is None else convert(part) for part in (self.old, self.full))
        return Change(convert(self.indices), convert(self.new), self.shape, old, full)

    def only(self, chosen: Values) -> Change[Values]:
        """The same for the weights that are ``chosen`` (bool, (n,))."""
        return self if bool(chosen.all()) else self.each(lambda part: part[chosen])

    @property
    def moved(self) -> Values:
        """Positions of the weights that change at this α: a linear edit's step may be lost in rounding."""
        return self.indices if self.old is None else self.indices[self.new != self.old]

    @property
    def moves(self) -> bool:
        """Whether any weight changes at this α."""
        return self.old is None or bool((self.new != self.old).any())


def step(old: Tensor, full: Tensor, alpha: float) -> Tensor:
    """old + α (full − old), worked out in float32 at least, in the dtype of ``old``; at α = 1 ``full`` to the bit."""
    import torch

    if alpha == 1:
        return full.to(old.dtype)
    wide = torch.promote_types(old.dtype, torch.float32)
    start = old.to(wide)
    return (start + alpha * (full.to(wide) - start)).to(old.dtype)


def values_at(parameter: Tensor, indices: Tensor) -> Tensor:
    """A copy of the values at flat ``indices`` (n,): shape (n,), on the processor."""
    return parameter.detach()[_places(parameter, indices)].cpu()


def write_at_(parameter: Tensor, indices: Tensor, values: Tensor) -> None:
    """Write ``values`` (n,) at flat ``indices`` (n,), in place."""
    parameter.detach()[_places(parameter, indices)] = values.to(parameter.device, parameter.dtype)


def _places(parameter: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
    import torch

    return torch.unravel_index(indices.to(parameter.device), parameter.shape)
