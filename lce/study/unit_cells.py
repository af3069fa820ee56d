"""How cells of other units than weights are made: features, attention heads and directions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from lce.edit.site_edit import DirectionEdit
from lce.evaluation.direction_audit import DirectionAudit
from lce.evaluation.direction_moves import moves, random_moves
from lce.evaluation.head_audit import HeadTrial
from lce.evaluation.head_trials import row_of, unedited_scores
from lce.evaluation.site_edits import SiteEdits, Trial, direction_trial, feature_trial, random_trial, risen
from lce.localize.direction_settings import DirectionEditName
from lce.localize.feature_settings import DirectionName, RuleName
from lce.localize.head_sets import random_sets
from lce.localize.head_settings import HeadEditName
from lce.metrics.picture_means import mean_of
from lce.metrics.separation import area_under_curve
from lce.metrics.suite import all_scores
from lce.study.cells import DIRECTION, Cell
from lce.study.worker_cache import WorkerCache


def measure_features(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """A language model with features or a direction edited, on the occupations that the edit was not chosen by."""
    measured = cache.measured(cell)
    if cell.localization is None:
        return {"scores": all_scores(measured.before.values())}
    row, metrics = measured.row(_trial(measured.edits, cell))
    costs = {name: risen(measured.before[name], metrics[name]) for name in measured.evaluator.texts}
    return {"scores": row["scores"], "closed": row["closed"], "costs": costs, "selected": row["count"]}


def _trial(edits: SiteEdits, cell: Cell) -> Trial:
    """The edit that ``cell`` stands for; its α is the scale of features."""
    kind, _, direction = str(cell.localization).partition(" ")
    strength: Any = cell.alpha
    if kind == DIRECTION:
        return direction_trial(edits, cast(DirectionName, direction), strength)
    rule, count = cast(RuleName, kind), cast(int | None, cell.count)
    if cell.control == "none":
        return feature_trial(edits, rule, strength, count)
    whole = edits.features(strength, rule, count=count)
    return random_trial(edits, whole, cell.draw or 0, cell.control == "matched")


def measure_heads(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """The CLIP with the heads edited that are selected; without a size, unedited, with the order of its heads.

    Where the rule finds fewer heads than the size, how many are ``available``.
    """
    audit = cache.audit(cell)
    if cell.count is None:
        order = [{"layer": head.layer, "head": head.head, "score": head.score} for head in audit.localizer.ranked()]
        blocks = len(set(audit.block[audit.group >= 0].tolist()))
        return {**unedited_scores(audit), "blocks": blocks, "order": order}
    if (available := len(audit.localizer.ranked())) < cast(int, cell.count):
        return {"available": available}
    trial = HeadTrial("chosen", audit.localizer.selection(cast(int, cell.count)), cast(HeadEditName, cell.strategy))
    [outcome] = audit.measured([trial])
    row = row_of(audit, trial, outcome)
    return {name: row[name] for name in ("heads", "scores", "differences", "reduced")}


def measure_random_heads(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """The CLIP with random sets of heads edited, as many of each layer as are selected there; likewise."""
    audit = cache.audit(cell)
    if (available := len(audit.localizer.ranked())) < cast(int, cell.count):
        return {"sets": [], "available": available}
    selection = audit.localizer.selection(cast(int, cell.count))
    sets = random_sets(audit.units, selection, cache.study.heads.random_sets, cell.seed or 0)
    trials = [HeadTrial("random", drawn, cast(HeadEditName, cell.strategy)) for drawn in sets]
    rows = [row_of(audit, *pair) for pair in zip(trials, audit.measured(trials), strict=True)]
    return {"sets": [{name: row[name] for name in ("heads", "values", "reduced")} for row in rows]}


def measure_directions(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """The vision-language model with the direction of the chosen layer edited; without an edit, unedited."""
    audit, before = cache.directions(cell)
    if cell.strategy is None:
        scores, shown, unsure = before.scores[audit.layer], audit.shown, audit.ambiguous
        return {
            "layer": audit.layer,
            "leaning": mean_of(np.abs(scores), shown.blocks).as_json(),
            "separation": area_under_curve(scores, shown.groups, shown.blocks).as_json(),
            "odds": mean_of(before.odds[unsure], shown.blocks[unsure]).as_json(),
        }
    [row] = moves(audit, before, [_direction_edit(audit, cell)])
    return row


def measure_random_directions(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """The same with random directions of the same layer."""
    audit, before = cache.directions(cell)
    return {
        "directions": random_moves(audit, before, _direction_edit(audit, cell), cast(DirectionEditName, cell.strategy))
    }


def _direction_edit(audit: DirectionAudit, cell: Cell) -> DirectionEdit:
    edit = audit.edit(audit.layer, cast(DirectionEditName, cell.strategy))
    return replace(edit, alpha=cast(float, cell.alpha))
