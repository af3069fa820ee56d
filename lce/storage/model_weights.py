"""Models as localisation and edits see them: some named weight matrices θ, and a mask m of those that are kept."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lce.storage.safetensors_file import PIECE
from lce.foundations.threads import Progress, ordered

Result = TypeVar("Result")


class Piece(NamedTuple):
    """The weights [first, last) of a parameter."""

    name: str
    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first


def pieces(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Piece]:
    """All parameters in order, cut up."""
    for name, shape in shapes.items():
        size = prod(shape)
        yield from (Piece(name, first, min(first + PIECE, size)) for first in range(0, size, PIECE))


class ModelWeights(ABC):
    """The weight matrices of one model that a comparison is about."""

    folder: str

    @property
    @abstractmethod
    def is_pruned(self) -> bool:
        """Whether there is a mask that prunes anything."""

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of these matrices."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and values."""

    @abstractmethod
    def values(self, piece: Piece) -> Tensor:
        """Flat values θ of a piece."""

    @abstractmethod
    def kept(self, piece: Piece) -> Tensor | None:
        """Which weights of a piece are kept, flat; None where there is no mask, hence all."""

    @abstractmethod
    def digest(self, name: str, indices: Tensor | None = None, values: Tensor | None = None) -> str:
        """SHA-256 of a whole parameter, with ``values`` (n,) at ``indices`` (n,) if they are given."""

    def whole(self, name: str) -> Piece:
        """All of a parameter as one piece."""
        return Piece(name, 0, prod(self.shapes[name]))

    def values_before_pruning(self, piece: Piece) -> Tensor:
        """As `values`, the pruned ones as they were before pruning."""
        return self.values(piece)

    def magnitudes(self, piece: Piece, other: ModelWeights | None = None) -> Tensor:
        """Bits of |θ| in float32, or of |θ − the other's θ|, as int32, which have the same order: see `lce.ranking`.

        They lie in memory that this thread uses again for the next piece.
        """
        values = buffer(0, piece.size).copy_(self.values(piece))
        if other is not None:
            values.sub_(buffer(1, piece.size).copy_(other.values(piece)))
        return values.abs_().view(torch.int32)

    def at(self, name: str, indices: Tensor, read: Callable[[Piece], Tensor] | None = None) -> Tensor:
        """The values at sorted flat ``indices`` (n,), or what else is to be ``read`` there: shape (n,)."""
        read = read or self.values
        chosen = [read(Piece(name, 0, 0))]
        for piece in pieces({name: self.shapes[name]}):
            start, stop = torch.searchsorted(indices, torch.tensor([piece.first, piece.last])).tolist()
            if stop > start:
                chosen.append(read(piece).index_select(0, indices[start:stop] - piece.first))
        return torch.cat(chosen)


_OF_THIS_THREAD = threading.local()


def buffer(number: int, size: int) -> Tensor:
    """Float32 memory (size,) of the calling thread: fresh memory for each piece would take twice the time."""
    buffers: dict[Any, Tensor] = _OF_THIS_THREAD.__dict__
    if number not in buffers or len(buffers[number]) < size:
        buffers[number] = torch.empty(max(size, PIECE))
    return buffers[number][:size]


def over_pieces(
    work: Callable[[Piece], Result], shapes: Mapping[str, tuple[int, ...]], nbytes: int, title: str
) -> Iterator[tuple[Piece, Result]]:
    """What ``work`` makes of each piece of the parameters, in order; ``nbytes`` in all are read for it."""
    each = nbytes / max(1, sum(map(prod, shapes.values())))
    progress = Progress[Piece](
        title, len(shapes), nbytes, lambda piece: round(piece.size * each), lambda piece: piece.name
    )
    return ordered(work, pieces(shapes), progress)
