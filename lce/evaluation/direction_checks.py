"""What an audit of directions has to show, each as a value with its interval, a bar, and whether it holds.

L1 the groups are told apart inside. L2 whether there is an asymmetric filter: the model leans to the first group in the
middle and to the second at the end. L3 the edit takes the leaning away and moves the answers, and random directions do
not. L4 what the edit costs. L5 what the colour of a garment changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lce.evaluation.direction_audit import DirectionAudit
from lce.foundations.labels import number_text
from lce.metrics.picture_means import mean_of

LEAST_SEPARATION = 0.8
CHANCE, MOST_OFF_CHANCE = 0.5, 0.05
LEAST_FILTERED = 0.5
"""Share of the classes from which on there is said to be a filter."""
LEAST_TAKEN = 0.5
PERCENTILE = 95
"""Percentile of the random directions that the edit has to exceed."""
LEAST_RANDOM = 19
"""Random directions below which that cannot be told from chance."""
MOST_NAMED_LOST = 0.01
MOST_PERPLEXITY = 0.05
ROUNDING = 1e-9


def direction_checks(audit: DirectionAudit, found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The checks L1 to L5, of what `audited` has ``found``; L2 and L5 where there are classes, and colours."""
    checks = {"L1": _told_apart(audit, found), "L3": _moved(audit, found), "L4": _costs(audit, found)}
    if found["classes"]:
        checks["L2"] = _filtered(audit, found)
    if found["colours"]:
        checks["L5"] = _coloured(audit, found)
    return dict(sorted(checks.items()))


def _told_apart(audit: DirectionAudit, found: Mapping[str, Any]) -> dict[str, Any]:
    row = found["layers"][found["layer"]]
    one, other = (group.name for group in audit.attribute.groups)
    chance = row["shuffled"]["mean"]
    is_chance = chance is not None and abs(chance - CHANCE) <= MOST_OFF_CHANCE + ROUNDING
    which = "other pictures than the layer was chosen by" if audit.settings.chosen_by else "the pictures themselves"
    value = row["measured"]["value"]
    return {
        "what": f"area under the curve by which LALS tells {one} from {other} in layer {found['layer'] + 1}, "
        f"on {which}",
        **row["measured"],
        "layer": found["layer"],
        "shuffled": row["shuffled"],
        "bar": f"at least {LEAST_SEPARATION:g}; with shuffled labels {CHANCE:g} ± {MOST_OFF_CHANCE:g} "
        f"(here {number_text(chance)})",
        "holds": bool(value is not None and value >= LEAST_SEPARATION and is_chance),
    }


def _filtered(audit: DirectionAudit, found: Mapping[str, Any]) -> dict[str, Any]:
    one, other = (group.name for group in audit.attribute.groups)
    filtered = np.array([float(row["filtered"]) for row in found["classes"]])
    score = mean_of(filtered, np.arange(len(filtered)))
    raw = float(np.mean([row["raw_filtered"] for row in found["classes"]]))
    has_nobody = found["before"]["nobody"] is not None
    return {
        "what": f"share of the classes whose pictures lean to {one} in the middle layers and to {other} in the last one"
        + (", less what pictures of nobody do" if has_nobody else ""),
        **score.as_json(),
        "raw": raw,
        "bar": f"an asymmetric filter from {LEAST_FILTERED:g} on"
        + (f" (not less pictures of nobody: {raw:.2f})" if has_nobody else ""),
        "holds": bool(score.value >= LEAST_FILTERED),
    }


def _moved(audit: DirectionAudit, found: Mapping[str, Any]) -> dict[str, Any]:
    kept, random = found["edits"][0], found["random"]
    moves, shares = (
        [abs(row["moved"]["value"]) for row in random],
        [row["taken"]["value"] for row in random],
    )
    limit = float(np.percentile(moves, PERCENTILE)) if random else None
    most = float(np.percentile(shares, PERCENTILE)) if random else None
    value, moved = kept["taken"]["value"], kept["moved"]["value"]
    is_beyond = len(random) >= LEAST_RANDOM and limit is not None and abs(moved) > limit and most is not None
    return {
        "what": f"share of |LALS| in layer {found['layer'] + 1} that the {kept['edit']} edit takes away; it moves the "
        f"log odds of the answers by {moved:+.2f}, {len(random)} random directions by at most {number_text(limit)} "
        f"(percentile {PERCENTILE})",
        **kept["taken"],
        "moved": kept["moved"],
        "gap": kept["gap_taken"],
        "random": {"n": len(random), "moved": limit, "taken": most, "percentile": PERCENTILE},
        "bar": f"at least {LEAST_TAKEN:g}, and the answers move beyond percentile {PERCENTILE} of at least "
        f"{LEAST_RANDOM} random directions",
        "holds": bool(is_beyond and value is not None and value >= LEAST_TAKEN and value > most),
    }


def _costs(audit: DirectionAudit, found: Mapping[str, Any]) -> dict[str, Any]:
    kept, before = found["edits"][0], found["before"]
    change, risen = kept["class_named_change"], kept["perplexity_change"]
    names = before["class_named"]["value"], kept["class_named"]["value"]
    is_named = change["value"] is not None and change["value"] >= -MOST_NAMED_LOST - ROUNDING
    return {
        "what": f"change, under the {kept['edit']} edit, of the share of pictures whose class is named "
        f"({number_text(names[0], '.3f')} → {number_text(names[1], '.3f')}); perplexity of captions "
        f"{number_text(before['perplexity']['value'])} → {number_text(kept['perplexity']['value'])}",
        **change,
        "perplexity_change": risen,
        "bar": f"down by at most {100 * MOST_NAMED_LOST:g} point; perplexity up by at most {MOST_PERPLEXITY:.0%}",
        "holds": bool(is_named and risen["value"] is not None and risen["value"] <= MOST_PERPLEXITY),
    }


def _coloured(audit: DirectionAudit, found: Mapping[str, Any]) -> dict[str, Any]:
    first, second = found["colours"][:2]
    against = second["leaning_against_first"]
    return {
        "what": f"LALS of pictures in {first['colour']} less that of the same in {second['colour']}",
        **against,
        "odds": second["odds_against_first"],
        "bar": "an interval above 0",
        "holds": bool(against["interval"] and against["interval"][0] > 0),
    }
