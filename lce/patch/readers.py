"""What a patch is made from and goes into: a checkpoint or a model in memory, both read in the same way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lce.storage.arrays import Array
from lce.storage.checkpoint import Checkpoint, Readable, Reader, canonical

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModuleTensor(NamedTuple):
    """A parameter of a model in memory, as `Readable` describes it."""

    tensor: Tensor
    code: str
    shape: tuple[int, ...]
    size: int
    nbytes: int
    chunks: Callable[[], Iterator[tuple[int, Array]]]


class ModuleReader:
    """The parameters of a model in memory, by canonical name."""

    def __init__(self, model: nn.Module) -> None:
        from lce.storage.torch_bridge import CODES, copied_chunks

        self.title = str(getattr(model, "name_or_path", "")) or type(model).__name__
        self.entries = {
            canonical(name): ModuleTensor(
                tensor := parameter.detach(),
                CODES.get(tensor.dtype, str(tensor.dtype)),
                tuple(tensor.shape),
                tensor.numel(),
                tensor.nbytes,
                partial(copied_chunks, tensor),
            )
            for name, parameter in model.named_parameters()
        }

    def untie(self, names: Collection[str]) -> None:
        """Does nothing: a tied weight in memory is one parameter of one name."""


def opened(model: str | Path | nn.Module) -> Reader[Readable]:
    """What reads ``model``: a folder, a name on the hub, or a model in memory.

    Raises:
        LceError: there is no such model, or it is no safetensors checkpoint.
    """
    return Checkpoint(model) if isinstance(model, str | Path) else ModuleReader(model)
