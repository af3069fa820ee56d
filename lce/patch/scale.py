"""A patch for another α."""

from dataclasses import replace
from math import isfinite
from pathlib import Path

import torch

from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_other_file
from lce.patch.format import Patch
from lce.patch.on_modules import in_torch
from lce.patch.writer import Made, made_of, write_patch
from lce.storage.changes import step


def scale(patch: Patch, alpha: float, path: str | Path) -> Patch:
    """Write to ``path`` the ``patch`` as it would have been made with another α, bit for bit, without the reference.

    Raises:
        LceError: the edit is not linear in α, old or full-step values were left out, α is 0, not finite, or leads
            out of the numbers' range, or ``path`` is the patch itself.
    """
    check_other_file(path, patch.file)
    if not (patch.has_old and patch.has_full):
        raise LceError(
            "the patch is without the old or the full-step values, from which another α follows; "
            "only edits that are linear in α have the latter"
        )
    if not isfinite(alpha) or alpha == 0:
        raise LceError(f"alpha: expected a finite number other than 0, got {alpha:g}")

    def made(name: str) -> Made:
        change, about = in_torch(patch.changes, name), patch.parameters[name]
        assert change.old is not None
        assert change.full is not None
        new = step(change.old, change.full, alpha)
        if not bool(torch.isfinite(new).all()):
            raise LceError(f"alpha: {alpha:g} gives values in {name} that are not finite")
        return made_of(replace(change, new=new), about.sha256, None)

    known = {key: value for key, value in patch.provenance.items() if key != "scores"}
    return write_patch(
        path,
        made,
        patch.changes.sizes,
        {**known, "alpha": alpha, "scaled_from_alpha": patch.provenance.get("alpha")},
        refuse_if_void=f"alpha: {alpha:g} changes no weight",
    )
