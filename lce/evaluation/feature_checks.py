"""What an experiment with features has to show, each as a value with its interval, a bar, and whether it holds.

F1 the gap of the unedited model. F2 features by some rule close a part of it at a small cost. F3 random and matched
features do not. F4 directions are in the table as edits of their own, and kept as patches. F5 the table of all
occupations. F6 the curve over strengths, with all kinds of edits. All on occupations that the edits were not chosen by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lce.evaluation.site_edits import CHOOSING, HELD_OUT
from lce.metrics.occupation_pronouns import OCCUPATIONS

LEAST_GAP = 1.0
"""Gap of the unedited model that there has to be [nats]."""
LEAST_CLOSED = 0.25
"""Share of it that an edit closes at least; random features at most this share of what the edit closes."""
WITHIN = (-1.0, 0.3)
"""Scales of features that count."""
CONTROLS = ("random", "matched")


def feature_checks(
    before: dict[str, Any], rows: Sequence[dict[str, Any]], jobs: Sequence[dict[str, Any]], most_perplexity: float
) -> dict[str, dict[str, Any]]:
    """The checks F1 to F6.

    Args:
        before: scores of the unedited model.
        rows: what `Measured.row` says of each edit, with `perplexity_change` [%] and the `patch`.
        jobs: the table of occupations.
        most_perplexity: by how much an edit may raise the perplexity [%].
    """
    gap = before[HELD_OUT]
    features = [
        row for row in rows if not _is(row, *CONTROLS, "direction") and WITHIN[0] <= row["strength"] <= WITHIN[1]
    ]
    best = _chosen(features, most_perplexity)
    controls = [row for row in rows if best and _is(row, *CONTROLS) and row["strength"] == best["strength"]]
    directions = [row for row in rows if _is(row, "direction")]
    ahead = _chosen(directions, most_perplexity)
    reduced = [row for row in jobs if row["verdict"] == "reduced"]
    kinds = {kind: sum(_is(row, kind) for row in rows) for kind in (*CONTROLS, "direction")}
    return {
        "F1": {
            "what": "gap of the unedited model in held-out sentences [nats]",
            **{key: gap[key] for key in ("value", "interval", "n")},
            "bar": f"above {LEAST_GAP:g}",
            "holds": bool(gap["value"] > LEAST_GAP),
        },
        "F2": {
            "what": "share of the gap in held-out sentences that features close, on held-out occupations",
            **_best(best),
            "bar": f"at least {LEAST_CLOSED:g}, perplexity up by less than {most_perplexity:g} %",
            "holds": bool(best and _left(best) <= 1 - LEAST_CLOSED),
        },
        "F3": _controlled(best, controls),
        "F4": {
            "what": "the same of the best direction",
            **_best(ahead),
            "wins": bool(ahead and (best is None or _left(ahead) < _left(best))),
            "bar": "each direction an edit of its own, kept as a patch",
            "holds": bool(directions) and all(row["patch"] for row in directions),
        },
        "F5": {
            "what": "share of the answers about occupations with the verdict reduced",
            "value": len(reduced) / len(jobs) if jobs else None,
            "interval": None,
            "n": len(jobs),
            "bar": f"all {len(OCCUPATIONS)} occupations in the table",
            "holds": {row["occupation"] for row in jobs} == set(OCCUPATIONS),
        },
        "F6": {
            "what": "points of the curve of gap against perplexity",
            "value": len(rows) + 1,
            "interval": None,
            "n": len(rows) + 1,
            "bar": "features of two rules, directions and random features",
            "holds": len({row["name"] for row in features}) > 1 and all(kinds.values()),
        },
    }


def _is(row: dict[str, Any], *kinds: str) -> bool:
    return str(row["name"]).split()[0] in kinds


def _chosen(rows: Sequence[dict[str, Any]], most_perplexity: float) -> dict[str, Any] | None:
    """Of the edits that raise the perplexity by less than so much, the one with the smallest gap in the sentences that
    edits are chosen by; None if there is none.
    """
    changes = ((row, row.get("perplexity_change")) for row in rows)
    cheap = [row for row, change in changes if change is not None and change < most_perplexity]
    return min(cheap, key=lambda row: abs(row["scores"][CHOOSING]["value"]), default=None)


def _left(row: dict[str, Any]) -> float:
    """How large a gap is left, as a share of the unedited model's."""
    value = row["closed"]["value"]
    return 1.0 if value is None else abs(1 - value)


def _best(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"value": None, "interval": None, "n": 0, "edit": None}
    return {
        **row["closed"],
        "edit": f"{row['name']}, {row['strength']:g}",
        "patch": row["patch"],
        "perplexity_change": row["perplexity_change"],
    }


def _controlled(best: dict[str, Any] | None, controls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the strongest of the random features does, as a share of what the edit does."""
    said = {
        "what": "what random and matched features do, as a share of what the edit does (the largest of all draws)",
        "bar": f"below {LEAST_CLOSED:g}",
    }
    if not best or not best["closed"]["value"] or not controls:
        return {**said, "value": None, "interval": None, "n": len(controls), "holds": False}
    shares = [abs(row["closed"]["value"]) / abs(best["closed"]["value"]) for row in controls]
    return {
        **said,
        "value": max(shares),
        "interval": [min(shares), max(shares)],
        "n": len(controls),
        "holds": max(shares) < LEAST_CLOSED,
    }
