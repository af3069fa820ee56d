"""Models as localisation and edits see them: some named weight matrices θ, and a mask m of those that are kept."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lce.foundations.threads import Progress, ordered
from lce.storage.arrays import CHUNK

Result = TypeVar("Result")


class Chunk(NamedTuple):
    """The weights [first, last) of a parameter."""

    name: str
    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first


def chunks(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Chunk]:
    """All parameters in order, cut up."""
    for name, shape in shapes.items():
        size = prod(shape)
        yield from (Chunk(name, first, min(first + CHUNK, size)) for first in range(0, size, CHUNK))


class ModelWeights(ABC):
    """The weight matrices of one model that a comparison is about."""

    kind = "weight"
    folder: str

    @property
    @abstractmethod
    def sparsity(self) -> float:
        """Share of the weights that its mask prunes; 0 where there is no mask."""

    @property
    def is_pruned(self) -> bool:
        return self.sparsity > 0

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
    def values(self, chunk: Chunk) -> Tensor:
        """Flat values θ of a chunk."""

    @abstractmethod
    def kept(self, chunk: Chunk) -> Tensor | None:
        """Which weights of a chunk are kept, flat; None where there is no mask, hence all."""

    @abstractmethod
    def digest(self, name: str, indices: Tensor | None = None, values: Tensor | None = None) -> str:
        """SHA-256 of a whole parameter, with ``values`` (n,) at ``indices`` (n,) if they are given."""

    def all_kept(self, name: str) -> Tensor:
        """Which weights of a parameter are kept (bool, the parameter's shape)."""
        kept = self.kept(self.whole(name))
        shape = self.shapes[name]
        return torch.ones(shape, dtype=torch.bool) if kept is None else kept.view(shape)

    def may_differ(self, other: ModelWeights, name: str) -> Tensor:
        """Which weights of a parameter an edit between the two can move: those kept in one (bool, its shape)."""
        return self.all_kept(name) | other.all_kept(name)

    def whole(self, name: str) -> Chunk:
        """All of a parameter as one chunk."""
        return Chunk(name, 0, prod(self.shapes[name]))

    def values_before_pruning(self, chunk: Chunk) -> Tensor:
        """As `values`, the pruned ones as they were before pruning."""
        return self.values(chunk)

    def magnitudes(self, chunk: Chunk, other: ModelWeights | None = None) -> Tensor:
        """Bits of |θ| in float32, or of |θ − the other's θ|, as int32, which have the same order (`lce.storage.top_k`).

        They lie in memory that this thread uses again for the next chunk.
        """
        values = buffer(0, chunk.size).copy_(self.values(chunk))
        if other is not None:
            values.sub_(buffer(1, chunk.size).copy_(other.values(chunk)))
        return values.abs_().view(torch.int32)

    def at(self, name: str, indices: Tensor, read: Callable[[Chunk], Tensor] | None = None) -> Tensor:
        """The values at sorted flat ``indices`` (n,), or what else is to be ``read`` there: shape (n,)."""
        read = read or self.values
        if len(indices) == prod(self.shapes[name]):
            return torch.cat([read(chunk) for chunk in chunks({name: self.shapes[name]})])
        chosen = [read(Chunk(name, 0, 0))]
        for chunk in chunks({name: self.shapes[name]}):
            start, stop = torch.searchsorted(indices, torch.tensor([chunk.first, chunk.last])).tolist()
            if stop > start:
                chosen.append(read(chunk).index_select(0, indices[start:stop] - chunk.first))
        return torch.cat(chosen)


_OF_THIS_THREAD = threading.local()


def buffer(number: int, size: int) -> Tensor:
    """Float32 memory (size,) of the calling thread: fresh memory for each chunk would take twice the time."""
    buffers: dict[Any, Tensor] = _OF_THIS_THREAD.__dict__
    if number not in buffers or len(buffers[number]) < size:
        buffers[number] = torch.empty(max(size, CHUNK))
    return buffers[number][:size]


def over_chunks(
    work: Callable[[Chunk], Result],
    shapes: Mapping[str, tuple[int, ...]],
    nbytes: int,
    title: str,
    most: int | None = None,
) -> Iterator[tuple[Chunk, Result]]:
    """What ``work`` makes of each chunk of the parameters, in order; ``nbytes`` in all are read for it.

    Args:
        most: if given, work on no more than the first so many weights of each chunk.
    """
    each = nbytes / max(1, sum(map(prod, shapes.values())))
    progress = Progress[Chunk](
        title, len(shapes), nbytes, lambda chunk: round(chunk.size * each), lambda chunk: chunk.name
    )
    found = chunks(shapes)
    if most is not None:
        found = (chunk._replace(last=min(chunk.last, chunk.first + most)) for chunk in found)
    return ordered(work, found, progress)
