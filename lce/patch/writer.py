"""Writing a patch, parameter by parameter: whatever it is made of, this is the one way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_replaceable
from lce.foundations.threads import by_tensor, ordered
from lce.patch.format import Patch
from lce.patch.record import Parameter, check_name, record_of
from lce.storage.arrays import Array, whole_digest
from lce.storage.changes import Change
from lce.storage.position_codec import encode
from lce.storage.safetensors_file import TensorWriter

if TYPE_CHECKING:
    from torch import Tensor


class Made(NamedTuple):
    """What a patch holds of one parameter, what it says of it, and whether a weight of it changes."""

    change: Change[Array]
    about: Parameter
    moves: bool


class Kept(NamedTuple):
    """The tensors of a patch that belong to one parameter, each with name, type and digest; the rest as in `Made`."""

    tensors: list[tuple[str, Array, str, str]]
    about: Parameter
    moves: bool


def made_of(change: Change[Tensor], sha256: str, sha256_after: str | None) -> Made:
    """What goes into a patch of a change in memory.

    Args:
        sha256, sha256_after: of the whole parameter, before the change and, if it is known, after it.
    """
    from lce.storage.torch_bridge import CODES, to_numpy

    about = Parameter(change.shape, CODES[change.new.dtype], len(change.indices), sha256, sha256_after)
    return Made(change.each(to_numpy), about, change.moves)


def write_patch(
    path: str | Path,
    made: Callable[[str], Made | None],
    sizes: Mapping[str, int],
    provenance: Mapping[str, Any],
    keep_old: bool = True,
    keep_full: bool = True,
    refuse_if_void: str = "the patch would change no weight",
) -> Patch:
    """Write a patch to ``path``, and open it.

    Args:
        made: makes what goes in of each parameter, None for nothing; it is called in a few threads.
        sizes: the parameters in order, with the bytes of each, for the progress bar.
        provenance: what the patch says of where it comes from.
        keep_old: with the old values, so that the patch can be reverted.
        keep_full: with the values at α = 1 where there are any, so that the patch can be scaled.
        refuse_if_void: what the error says if no weight changes.

    Raises:
        LceError: no weight changes, the disk is full, or ``path`` is a file that is no patch; nothing is written then.
    """
    check_replaceable(path, "patch")
    parts = ["new"] + ["old"] * keep_old + ["full"] * keep_full

    def work(name: str) -> Kept | None:
        found = made(name)
        return None if found is None else _kept(parts, name, found)

    parameters: dict[str, Parameter] = {}
    moves = False
    with TensorWriter.to(path) as tensors:
        for name, kept in ordered(work, sizes, by_tensor("Making the patch", dict(sizes))):
            if kept is not None:
                for tensor in kept.tensors:
                    tensors.add(*tensor)
                parameters[name] = kept.about
                moves = moves or kept.moves
        if not moves:
            raise LceError(refuse_if_void)
        tensors.record = record_of(parameters, provenance)
    return Patch.open(path, allow_non_finite=True)


def _kept(parts: list[str], name: str, made: Made) -> Kept:
    check_name(name)
    change, about = made.change, made.about
    vectors = {f"{part}/{name}": (getattr(change, part), about.dtype) for part in parts}
    vectors[f"steps/{name}"] = encode(change.indices)
    tensors = [(key, flat, code, _digest(flat, code)) for key, (flat, code) in vectors.items() if flat is not None]
    if change.old is not None:
        known = {key: sha256 for key, _, _, sha256 in tensors}
        about = replace(about, sha256_old=known.get(f"old/{name}") or _digest(change.old, about.dtype))
    return Kept(tensors, about, made.moves)


def _digest(flat: Array, code: str) -> str:
    return whole_digest(flat, code, flat.shape)
