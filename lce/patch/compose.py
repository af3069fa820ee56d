"""Two patches put together, without any model.

How two patches compose is decided parameter by parameter. A parameter that only one of them touches goes in as it is.
Where both touch it, and
- the second was made for what the first one leaves (its base has the first's sha256_after), they apply one after the
  other: where both change a weight, the second one's value stays, and the first one's old value;
- both were made for the same base, they apply side by side: a weight to which they give different values is a conflict,
  and refused unless one of the two is preferred;
- anything else, they were made for different models, and are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_other_file
from lce.patch.format import Patch
from lce.patch.record import Parameter, RawChange
from lce.patch.writer import PatchWriter
from lce.storage.arrays import Array, bits

LISTED = 3


def compose(first: Patch, second: Patch, path: str | Path, prefer: Literal["first", "second"] | None = None) -> Patch:
    """Write to ``path`` the patch that does what ``first`` and ``second`` do together.

    Args:
        prefer: whose value a weight gets to which both, side by side, give different ones.

    Raises:
        LceError: the two were made for different models, there is a conflict and nobody is preferred, or ``path`` is
            one of them.
    """
    check_other_file(path, *filter(None, (first.file, second.file)))
    conflicts = []
    shared = [name for name in first.parameters if name in second.parameters]
    for name in shared:
        one, other = first.parameters[name], second.parameters[name]
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise LceError(f"{name}: the two patches were made for different models")
        if _in_sequence(first, second, name):
            _check_sequence(first.changes[name], second.changes[name], name)
        else:
            if one.sha256 != other.sha256:
                raise LceError(f"{name}: the two patches were made for different models")
            where = _conflicts(first.changes[name], second.changes[name])
            if len(where):
                places = ", ".join(map(str, where[:LISTED].tolist())) + (", …" if len(where) > LISTED else "")
                conflicts.append(f"{name} at {len(where):,} weights ({places})")
    if conflicts and prefer is None:
        more = f"; and {len(conflicts) - LISTED} more parameters" if len(conflicts) > LISTED else ""
        raise LceError(
            f"the two patches give different values to the same weights: {'; '.join(conflicts[:LISTED])}{more}; "
            "say with --prefer first or --prefer second whose shall stay"
        )
    provenance = {"composed_of": [first.provenance, second.provenance], "conflicts": conflicts, "preferred": prefer}
    with PatchWriter.to(path, provenance, keep_old=first.has_old and second.has_old, keep_full=False) as writer:
        moves = False
        for name in [*first.parameters, *(name for name in second.parameters if name not in shared)]:
            change, about = _composed(first, second, name, prefer)
            writer.add(name, change, about)
            moves = moves or change.old is None or not np.array_equal(bits(change.new), bits(change.old))
        if not moves:
            raise LceError("the two patches take back what each other does; together they change nothing")
    return Patch.open(path, allow_non_finite=True)


def _check_sequence(one: RawChange, other: RawChange, name: str) -> None:
    """Raises LceError if the second patch did not find what the first one leaves, whatever their digests say."""
    shared = np.intersect1d(one.indices, other.indices, assume_unique=True)
    if other.old is not None:
        left, found = (
            bits(values[np.searchsorted(change.indices, shared)])
            for change, values in ((one, one.new), (other, other.old))
        )
        if not np.array_equal(left, found):
            raise LceError(f"{name}: the second patch has other old values than the first one's new ones")


def _in_sequence(first: Patch, second: Patch, name: str) -> bool:
    return first.parameters[name].sha256_after == second.parameters[name].sha256


def _composed(first: Patch, second: Patch, name: str, prefer: str | None) -> tuple[RawChange, Parameter]:
    for only, other in ((first, second), (second, first)):
        if name not in other.parameters:
            return only.changes[name], only.parameters[name]
    one, two, about = first.changes[name], second.changes[name], first.parameters[name]
    in_sequence = _in_sequence(first, second, name)
    change = _union(one, two, first_wins=not in_sequence and prefer == "first")
    after = second.parameters[name].sha256_after if in_sequence else None
    return change, Parameter(about.shape, about.dtype, len(change.indices), about.sha256, after)


def _union(one: RawChange, two: RawChange, first_wins: bool) -> RawChange:
    """All weights of both; where both have a new value one of them wins, and the old one is the first's."""
    indices = np.union1d(one.indices, two.indices)
    news = [(two.indices, two.new), (one.indices, one.new)]
    new = _filled(indices, news if first_wins else news[::-1])
    if one.old is None or two.old is None:
        return RawChange(indices, new)
    return RawChange(indices, new, _filled(indices, [(two.indices, two.old), (one.indices, one.old)]))


def _filled(indices: Array, parts: list[tuple[Array, Array]]) -> Array:
    """Values for all ``indices`` from (indices, values), later parts over earlier ones."""
    values = np.empty(len(indices), parts[0][1].dtype)
    for places, part in parts:
        values[np.searchsorted(indices, places)] = part
    return values


def _conflicts(one: RawChange, other: RawChange) -> Array:
    """Positions that both change, to different values."""
    shared = np.intersect1d(one.indices, other.indices, assume_unique=True)
    first, second = (bits(change.new[np.searchsorted(change.indices, shared)]) for change in (one, other))
    return shared[first != second]
