"""Patches from patches: two put together, or one with another α, without any model.

How two patches compose is decided parameter by parameter. A parameter that only one of them touches goes in as it is.
Where both touch it, and
- the second was made for what the first one leaves (its base has the first's sha256_after), they apply one after the
  other: where both change a weight, the second one's value stays, and the first one's old value;
- both were made for the same base, they apply side by side: a weight to which they give different values is a conflict,
  and refused unless one of the two is preferred;
- anything else, they were made for different models, and are refused.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lce.edits import LINEAR, Change, step
from lce.errors import LceError
from lce.patch.format import Patch, PatchWriter
from lce.patch.record import Parameter, described
from lce.tensorfile import bits

LISTED = 3


def compose(first: Patch, second: Patch, path: str | Path, prefer: Literal["first", "second"] | None = None) -> Patch:
    """Write to ``path`` the patch that does what ``first`` and ``second`` do together.

    Args:
        prefer: whose value a weight gets to which both, side by side, give different ones.

    Raises:
        LceError: the two were made for different models, or there is a conflict and nobody is preferred.
    """
    conflicts = []
    shared = [name for name in first.parameters if name in second.parameters]
    for name in shared:
        if not _in_sequence(first, second, name):
            one, other = first.parameters[name], second.parameters[name]
            if (one.sha256, one.shape, one.dtype) != (other.sha256, other.shape, other.dtype):
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
    with PatchWriter(path, provenance, keep_old=first.has_old and second.has_old, keep_full=False) as writer:
        for name in [*first.parameters, *(name for name in second.parameters if name not in shared)]:
            writer.add(name, *_composed(first, second, name, prefer))
    return Patch.open(path, allow_non_finite=True)


def _in_sequence(first: Patch, second: Patch, name: str) -> bool:
    return first.parameters[name].sha256_after == second.parameters[name].sha256


def _composed(first: Patch, second: Patch, name: str, prefer: str | None) -> tuple[Change, Parameter]:
    for only, other in ((first, second), (second, first)):
        if name not in other.parameters:
            return only.changes[name], only.parameters[name]
    one, two = first.changes[name], second.changes[name]
    in_sequence = _in_sequence(first, second, name)
    change = _union(one, two, first_wins=not in_sequence and prefer == "first")
    after = second.parameters[name].sha256_after if in_sequence else None
    return change, described(change, first.parameters[name].sha256, after)


def _union(one: Change, two: Change, first_wins: bool) -> Change:
    """All weights of both; where both have a new value one of them wins, and the old one is the first's."""
    indices = torch.cat([one.indices, two.indices]).unique()
    news = [(two.indices, two.new), (one.indices, one.new)]
    new = _filled(indices, news if first_wins else news[::-1])
    if one.old is None or two.old is None:
        return Change(indices, new, one.shape)
    return Change(indices, new, one.shape, _filled(indices, [(two.indices, two.old), (one.indices, one.old)]))


def _filled(indices: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Values for all ``indices`` from (indices, values), later parts over earlier ones."""
    values = torch.empty(len(indices), dtype=parts[0][1].dtype)
    for places, part in parts:
        values[torch.searchsorted(indices, places)] = part
    return values


def _conflicts(one: Change, other: Change) -> Tensor:
    """Positions that both change, to different values."""
    shared = one.indices[torch.isin(one.indices, other.indices)]
    values = (change.new[torch.searchsorted(change.indices, shared)] for change in (one, other))
    first, second = map(bits, values)
    return shared[first != second]


def scale(patch: Patch, alpha: float, path: str | Path) -> Patch:
    """Write to ``path`` the ``patch`` as it would have been made with another α, bit for bit, without the reference.

    Raises:
        LceError: the edit is not linear in α, old or full-step values were left out, or α is 0, not finite, or leads
            out of the numbers' range.
    """
    strategy = patch.provenance.get("strategy")
    if strategy not in LINEAR:
        raise LceError(f"the edit ({strategy}) is not linear in α; only {' and '.join(LINEAR)} can be scaled")
    if not (patch.has_old and patch.has_full):
        raise LceError("the patch was made without the old or the full-step values, from which another α follows")
    if not isfinite(alpha) or alpha == 0:
        raise LceError(f"alpha: expected a finite number other than 0, got {alpha:g}")
    known = {key: value for key, value in patch.provenance.items() if key != "scores"}
    moves = False
    with PatchWriter(path, {**known, "alpha": alpha, "scaled_from_alpha": patch.provenance.get("alpha")}) as writer:
        for name, change in patch.changes.items():
            assert change.old is not None
            assert change.full is not None
            new = step(change.old, change.full, alpha)
            if not bool(torch.isfinite(new).all()):
                raise LceError(f"alpha: {alpha:g} gives values in {name} that are not finite")
            scaled = Change(change.indices, new, change.shape, change.old, change.full)
            writer.add(name, scaled, described(scaled, patch.parameters[name].sha256, None))
            moves = moves or scaled.moves
        if not moves:
            raise LceError(f"alpha: {alpha:g} changes no weight")
    return Patch.open(path)
