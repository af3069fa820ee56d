"""What edits of directions take of the leaning, and how far they move the answers; random directions among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lce.edit.site_edit import DirectionEdit
from lce.evaluation.direction_audit import DirectionAudit
from lce.localize.direction_settings import DirectionEditName
from lce.metrics.picture_means import mean_of, share_taken
from lce.metrics.separation import separation


class Unedited(NamedTuple):
    """LALS of the n pictures that are shown, (layers, n), and the odds of the answers, (n), of the unedited model."""

    scores: NDArray[np.float64]
    odds: NDArray[np.float64]


def unedited(audit: DirectionAudit) -> Unedited:
    """What edits are compared with."""
    opened = audit.shown.openers
    return Unedited(audit.leaning(opened, scores_alone=True).scores.double().numpy(), audit.odds(opened))


def moves(audit: DirectionAudit, before: Unedited, edits: Sequence[DirectionEdit]) -> list[dict[str, Any]]:
    """What each of the ``edits`` takes of the leaning in its layer, and by how much it moves the answers.

    ``size`` is the root mean square of the length of what is added to a visual token.
    """
    if not edits:
        return []
    shown, unsure = audit.shown, audit.ambiguous
    odds = audit.odds_under(edits, shown.among(unsure).openers)
    rows = []
    for edit, after, (leaning, size) in zip(edits, odds, audit.leaning_under(shown.openers, edits), strict=True):
        layer = audit.units.sites.index(edit.site)
        rows.append({
            "layer": layer,
            "size": size,
            "taken": share_taken(np.abs(before.scores[layer]), np.abs(leaning), shown.blocks).as_json(),
            "separation": separation(leaning, shown.groups),
            "moved": mean_of(after - before.odds[unsure], shown.blocks[unsure]).as_json(),
        })  # fmt: skip
    return rows


def random_moves(
    audit: DirectionAudit, before: Unedited, edit: DirectionEdit, name: DirectionEditName
) -> list[dict[str, Any]]:
    """The same of random directions in the place of that of an ``edit``.

    Each is edited in the same way, and, as ``scaled``, with the strength with which it changes states as much as the
    edit does.

    Args:
        name: of the edit.
    """
    layer = audit.units.sites.index(edit.site)
    drawn = [replace(audit.edit(layer, name, vector), alpha=edit.alpha) for vector in audit.random_vectors()]
    [(_, size)] = audit.leaning_under(audit.shown.openers, [edit])
    rows = moves(audit, before, drawn)
    scaled = [
        replace(one, alpha=one.alpha * size / row["size"] if row["size"] else one.alpha)
        for one, row in zip(drawn, rows, strict=True)
    ]
    for row, one, strong in zip(rows, scaled, moves(audit, before, scaled), strict=True):
        row["scaled"] = {"alpha": one.alpha, **strong}
    return rows
