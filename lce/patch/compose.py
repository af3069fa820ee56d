"""Two patches put together, without any model.

How two patches compose is decided parameter by parameter. A parameter that only one of them touches goes in as it is.
Where both touch it, and
- the second was made for what the first one leaves (its base has the first's sha256_after), they apply one after the
  other: where both change a weight, the second one's value stays, and the first one's old value;
- both were made for the same base, they apply side by side: a weight to which they give different values is a conflict,
  and refused unless one of the two is preferred;
- anything else, they were made for different models, and are refused.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_other_file
from lce.patch.format import Patch
from lce.patch.record import Parameter, same_bits
from lce.patch.writer import Made, write_patch
from lce.storage.arrays import Array, bits
from lce.storage.changes import Change

LISTED = 3


def compose(first: Patch, second: Patch, path: str | Path, prefer: Literal["first", "second"] | None = None) -> Patch:
    """Write to ``path`` the patch that does what ``first`` and ``second`` do together.

    Args:
        prefer: whose value a weight gets to which both, side by side, give different ones.

    Raises:
        LceError: the two were made for different models, there is a conflict and nobody is preferred, or ``path`` is
            one of them.
    """
    check_other_file(path, first.file, second.file)
    conflicts = []
    shared = [name for name in first.parameters if name in second.parameters]
    for name in shared:
        one, other = first.parameters[name], second.parameters[name]
        in_sequence = _in_sequence(first, second, name)
        if (one.shape, one.dtype) != (other.shape, other.dtype) or not (in_sequence or one.sha256 == other.sha256):
            raise LceError(f"{name}: the two patches were made for different models")
        change, then = first.changes[name], second.changes[name]
        if in_sequence:  # whatever their digests say, the second one's old values are to be what the first one leaves
            if then.old is not None and len(_conflicts(change, change.new, then, then.old)):
                raise LceError(f"{name}: the second patch has other old values than the first one's new ones")
        else:
            where = _conflicts(change, change.new, then, then.new)
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
    return write_patch(
        path,
        lambda name: _composed(first, second, name, prefer),
        first.changes.sizes | second.changes.sizes,
        provenance,
        keep_old=first.has_old and second.has_old,
        keep_full=False,
        refuse_if_void="the two patches take back what each other does; together they change nothing",
    )


def _in_sequence(first: Patch, second: Patch, name: str) -> bool:
    return first.parameters[name].sha256_after == second.parameters[name].sha256


def _composed(first: Patch, second: Patch, name: str, prefer: str | None) -> Made:
    for only, other in ((first, second), (second, first)):
        if name not in other.parameters:
            change = only.changes[name]
            return Made(change, only.parameters[name], not same_bits(change.new, change.old))
    one, two, about = first.changes[name], second.changes[name], first.parameters[name]
    in_sequence = _in_sequence(first, second, name)
    change = _union(one, two, first_wins=not in_sequence and prefer == "first")
    after = second.parameters[name].sha256_after if in_sequence else None
    about = Parameter(about.shape, about.dtype, len(change.indices), about.sha256, after)
    return Made(change, about, not same_bits(change.new, change.old))


def _union(one: Change[Array], two: Change[Array], first_wins: bool) -> Change[Array]:
    """All weights of both; where both have a new value one of them wins, and the old one is the first's."""
    indices = np.union1d(one.indices, two.indices)
    news = [(two.indices, two.new), (one.indices, one.new)]
    new = _filled(indices, news if first_wins else news[::-1])
    if one.old is None or two.old is None:
        return Change(indices, new, one.shape)
    return Change(indices, new, one.shape, _filled(indices, [(two.indices, two.old), (one.indices, one.old)]))


def _filled(indices: Array, parts: list[tuple[Array, Array]]) -> Array:
    """Values for all ``indices`` from (indices, values), later parts over earlier ones."""
    values = np.empty(len(indices), parts[0][1].dtype)
    for places, part in parts:
        values[np.searchsorted(indices, places)] = part
    return values


def _conflicts(one: Change[Array], values: Array, other: Change[Array], others: Array) -> Array:
    """Positions that both change and at which ``values`` of the first and ``others`` of the second are not the same."""
    shared = np.intersect1d(one.indices, other.indices, assume_unique=True)
    first, second = (
        bits(part[np.searchsorted(change.indices, shared)]) for change, part in ((one, values), (other, others))
    )
    return shared[first != second]
