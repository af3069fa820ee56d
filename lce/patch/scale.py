"""A patch for another α."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import torch

from lce.config import LINEAR
from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_other_file
from lce.patch.format import Patch
from lce.patch.on_modules import Tensors, described, stored
from lce.patch.writer import PatchWriter
from lce.storage.changes import Change, step


def scale(patch: Patch, alpha: float, path: str | Path) -> Patch:
    """Write to ``path`` the ``patch`` as it would have been made with another α, bit for bit, without the reference.

    Raises:
        LceError: the edit is not linear in α, old or full-step values were left out, α is 0, not finite, or leads
            out of the numbers' range, or ``path`` is the patch itself.
    """
    check_other_file(path, *filter(None, [patch.file]))
    strategy = patch.provenance.get("strategy")
    if strategy not in LINEAR:
        raise LceError(f"the edit ({strategy}) is not linear in α; only {' and '.join(LINEAR)} can be scaled")
    if not (patch.has_old and patch.has_full):
        raise LceError("the patch was made without the old or the full-step values, from which another α follows")
    if not isfinite(alpha) or alpha == 0:
        raise LceError(f"alpha: expected a finite number other than 0, got {alpha:g}")
    known = {key: value for key, value in patch.provenance.items() if key != "scores"}
    moves = False
    with PatchWriter.to(path, {**known, "alpha": alpha, "scaled_from_alpha": patch.provenance.get("alpha")}) as writer:
        for name, change in Tensors(patch).items():
            assert change.old is not None
            assert change.full is not None
            new = step(change.old, change.full, alpha)
            if not bool(torch.isfinite(new).all()):
                raise LceError(f"alpha: {alpha:g} gives values in {name} that are not finite")
            scaled = Change(change.indices, new, change.shape, change.old, change.full)
            writer.add(name, stored(scaled), described(scaled, patch.parameters[name].sha256, None))
            moves = moves or scaled.moves
        if not moves:
            raise LceError(f"alpha: {alpha:g} changes no weight")
    return Patch.open(path)
