"""What an audit says: the unedited model's scores, and those of edits of selected, single and random heads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from lce.evaluation.head_audit import HeadAudit, HeadTrial, singles
from lce.evaluation.head_checks import PERCENTILE, head_checks, reduction
from lce.evaluation.picture_audit import Outcome
from lce.evaluation.planted_head import planted
from lce.localize.head_sets import random_sets
from lce.localize.selection import Selection
from lce.metrics.group_association import ACCURACY, CORRECTED_V, LEAN, GroupAssociation
from lce.metrics.items import Score, defined, differences, interval
from lce.metrics.retrieval_skew import max_skew

REDUCED = (LEAN, CORRECTED_V)
SHOWN = 12
"""Pictures of which the edit changes what they are taken for that the page shows."""
MOST_CHANGES = 8
"""Changes of predictions that are listed, the most frequent first."""


def audited(audit: HeadAudit, selection: Selection, others: Mapping[str, HeadAudit]) -> dict[str, Any]:
    """All that is measured: ``before``, ``edits``, ``singles``, ``random``, ``heads``, ``classes`` and ``checks``."""
    settings = audit.settings
    edits = [HeadTrial("chosen", selection, name, first) for name in settings.edits for first in (False, True)]
    alone = [trial for first in (False, True) for trial in singles(audit, first)] if settings.singles else []
    sets = random_sets(audit.units, selection, settings.random_sets, settings.seed)
    by_chance = [HeadTrial("random", drawn, settings.edits[0], first) for first in (False, True) for drawn in sets]
    trials = [*edits, *alone, *by_chance]
    outcomes = audit.measured(trials, kept=len(edits))
    before = unedited_scores(audit)
    rows = [row_of(audit, trial, outcome) for trial, outcome in zip(trials, outcomes, strict=True)]
    kept = rows[0]
    chosen = rows[: len(edits)]
    unedited = _max_skew(audit, audit.similarities)
    for row, outcome in zip(chosen, outcomes, strict=False):
        assert outcome.similarities is not None
        skew = _max_skew(audit, outcome.similarities)
        row["max_skew"] = skew.as_json()
        row["differences"]["max_skew"] = {
            "value": defined(skew.value - unedited.value),
            "interval": interval(skew.resampled - unedited.resampled),
            "n": skew.n,
        }
    by_chance_rows = [row for row in rows if row["role"] == "random"]
    compared = {audit.attribute.name: audit, **others} if others else {}
    leans = {name: _with_null(one.cross_fitted_among()) for name, one in compared.items()}
    real = [row for row in by_chance_rows if not row["is_first_order"]]
    return {
        "before": before,
        "edits": chosen,
        "shares": audit.statistics.shares(),
        "heads": [report.as_json(audit.localizer.dictionary) for report in audit.localizer.reports],
        "singles": [row for row in rows if row["role"] == "single"],
        "random": by_chance_rows,
        "classes": _by_class(audit, outcomes[0]),
        "changes": _changes(audit, outcomes[0]),
        "changed": _changed_pictures(audit, outcomes[0]),
        "checks": head_checks(before, kept, real, leans, audit.attribute.name, planted(audit)),
    }


def unedited_scores(audit: HeadAudit) -> dict[str, Any]:
    """The unedited model's ``scores`` and their ``null``, over all views and by parts, and how many views there are."""
    metric = audit.unedited
    plain = np.array([view.view == 0 for view in audit.batches.views])
    parts = {"with a class": audit.label >= 0, "without a class": audit.label < 0}
    found = {
        **_with_null(metric),
        "plain_accuracy": audit.unedited_among(plain).scores()[ACCURACY].as_json(),
        "max_skew": _max_skew(audit, audit.similarities).as_json(),
        "pictures": len(audit.pictures.pictures),
        "views": len(audit.batches.views),
    }
    if all(rows.any() for rows in parts.values()):
        found["parts"] = {name: _with_null(audit.unedited_among(rows)) for name, rows in parts.items()
                          if all((audit.group[rows] == group).any() for group in (0, 1))}  # fmt: skip
    return {"scores": {name: found.pop(name) for name in metric.values()}, "null": found.pop("null"), **found}


def _with_null(metric: GroupAssociation) -> dict[str, Any]:
    """The scores, and the percentile of the null by measure, and the share of the null that reaches the score."""
    scores, null = metric.scores(), metric.null()
    limits = {name: defined(float(np.nanpercentile(values, PERCENTILE))) for name, values in null.items()}
    found: dict[str, Any] = {name: score.as_json() for name, score in scores.items()}
    for name, values in null.items():
        found[name]["p_value"] = float((1 + (values >= scores[name].value).sum()) / (1 + len(values)))
    return {**found, "null": limits}


def row_of(audit: HeadAudit, trial: HeadTrial, outcome: Outcome) -> dict[str, Any]:
    """What is said of a trial: of the selected heads with intervals and tests, of the others the values alone."""
    metric = audit.association(outcome)
    row: dict[str, Any] = {
        "role": trial.role,
        "edit": trial.edit,
        "is_first_order": trial.is_first_order,
        "heads": audit.units.heads_of(trial.selection),
    }
    first = audit.unedited_scores
    if trial.role != "chosen":
        values = metric.values()
        return row | {
            "values": values,
            "reduced": {name: reduction(first[name].value, values[name]) for name in REDUCED},
        }
    second = metric.scores()
    reduced = {}
    for name in REDUCED:
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = 1 - np.abs(second[name].resampled) / np.abs(first[name].resampled)
        value = reduction(first[name].value, second[name].value)
        reduced[name] = {"value": value, "interval": interval(resampled), "n": first[name].n}
    return row | {
        "scores": {name: score.as_json() for name, score in second.items()},
        "differences": differences(metric, audit.unedited),
        "reduced": reduced,
    }


def _max_skew(audit: HeadAudit, similarities: Tensor) -> Score:
    """MaxSkew@k among the pictures of both groups, each as it is."""
    rows = [i for i, view in enumerate(audit.batches.views) if view.view == 0 and audit.group[i] >= 0]
    return max_skew(similarities[rows].numpy(), audit.group[rows], audit.block[rows], audit.settings.retrieved)


def _by_class(audit: HeadAudit, after: Outcome) -> list[dict[str, Any]]:
    """For each class, the share of each group's views that are taken for it, and its accuracy, before and after."""
    before = audit.outcome(audit.similarities)
    found = []
    for number, name in enumerate(audit.pictures.classes):
        row: dict[str, Any] = {"class": name}
        for when, outcome in (("before", before), ("after", after)):
            is_taken = outcome.predicted == number
            shares = [float(is_taken[audit.group == group].mean()) for group in (0, 1)]
            own = audit.label == number
            row[when] = {"shares": shares, "accuracy": float(is_taken[own].mean()) if own.any() else None}
        found.append(row)
    return found


def _changed_pictures(audit: HeadAudit, after: Outcome) -> list[dict[str, Any]]:
    """Some views that the edit has taken for another class, evenly spread over all of them."""
    before, classes = audit.outcome(audit.similarities).predicted, audit.pictures.classes
    moved = (before != after.predicted).nonzero()[0].tolist()
    return [
        {**audit.batches.views[i]._asdict(), "before": classes[before[i]], "after": classes[after.predicted[i]]}
        for i in moved[:: max(1, len(moved) // SHOWN)][:SHOWN]
    ]


def _changes(audit: HeadAudit, after: Outcome) -> dict[str, Any]:
    """Where predictions go that the edit changes: those that it rights, those that it breaks, and the other ones."""
    before, classes = audit.outcome(audit.similarities).predicted, audit.pictures.classes
    moved = before != after.predicted
    is_labelled = audit.label >= 0
    righted, broken = (moved & is_labelled & (outcome == audit.label) for outcome in (after.predicted, before))
    kinds = {"righted": righted, "broken": broken, "other": moved & ~righted & ~broken}
    found: dict[str, Any] = {"views": int(moved.sum())}
    for kind, rows in kinds.items():
        counted = Counter(zip(before[rows].tolist(), after.predicted[rows].tolist(), strict=True))
        most = [{"from": classes[one], "to": classes[other], "views": count}
                for (one, other), count in counted.most_common(MOST_CHANGES)]  # fmt: skip
        found[kind] = {"views": int(rows.sum()), "most_frequent": most}
    return found
