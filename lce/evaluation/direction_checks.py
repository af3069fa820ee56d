"""What an audit of directions has to show, each as a value with its interval, a bar, and whether it holds.

L1 the groups are told apart inside. L2 whether there is an asymmetric filter: the model leans to the first group in the
middle and to the second at the end. L3 the edit takes the leaning away and moves the answers, and random directions do
not. L4 what the edit costs. L5 what the colour of a garment changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """The checks L1 to L5, of what `audited` has ``found``; L2 where there are classes, and pictures without people; L5
    where there are colours.
    """
    groups = [group.name for group in audit.attribute.groups]
    checks = {"L1": _told_apart(audit, found, groups)}
    if found["classes"] and "without_people" in found:
        checks["L2"] = _filtered(found, groups)
    checks |= {"L3": _moved(found), "L4": _costs(found)}
    if found["colours"]:
        checks["L5"] = _coloured(found)
    return checks


def _told_apart(audit: DirectionAudit, found: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    row = found["layers"][found["layer"]]
    chance = row["shuffled"]
    is_chance = chance["mean"] is not None and abs(chance["mean"] - CHANCE) <= MOST_OFF_CHANCE + ROUNDING
    known = {picture.file for picture in audit.chosen_by.pictures}
    shared = sum(picture.file in known for picture in audit.shown.pictures)
    which = (
        f"{len(audit.shown.pictures)} pictures, {shared or 'none'} of them among those by which the layer was chosen"
    )
    value = row["measured"]["value"]
    limit = chance["interval"][1] if chance["interval"] else None
    return {
        "what": f"area under the curve by which LALS tells {groups[0]} from {groups[1]} in layer {found['layer'] + 1}; "
        f"{which}",
        **row["measured"],
        "layer": found["layer"],
        "shuffled": chance,
        "bar": f"at least {LEAST_SEPARATION:g}, and beyond percentile 97.5 of shuffled labels ({number_text(limit)}), "
        f"whose mean is {CHANCE:g} ± {MOST_OFF_CHANCE:g} ({number_text(chance['mean'])})",
        "holds": bool(value is not None and value >= LEAST_SEPARATION and is_chance and value > limit),
    }


def _filtered(found: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    filtered = np.array([float(row["filtered"]) for row in found["classes"]])
    score = mean_of(filtered, np.arange(len(filtered)))
    raw = float(np.mean([row["raw_filtered"] for row in found["classes"]]))
    return {
        "what": f"share of the classes whose pictures lean to {groups[0]} in the middle layers and to {groups[1]} in "
        "the last one, less what pictures without people do",
        **score.as_json(),
        "raw": raw,
        "bar": f"an asymmetric filter from {LEAST_FILTERED:g} on (without subtracting: {raw:.2f})",
        "holds": bool(score.value >= LEAST_FILTERED),
    }


def _moved(found: Mapping[str, Any]) -> dict[str, Any]:
    kept, random = found["edits"][0], found["random"]
    value, moved = kept["taken"]["value"], kept["moved"]["value"]
    about: dict[str, Any] = {"n": len(random), "percentile": PERCENTILE}
    for name, rows in (("same_strength", random), ("same_size", [row["scaled"] for row in random])):
        moves, shares = [abs(row["moved"]["value"]) for row in rows], [row["taken"]["value"] or 0.0 for row in rows]
        about[name] = {
            "moved": float(np.percentile(moves, PERCENTILE)) if rows else None,
            "taken": float(np.percentile(shares, PERCENTILE)) if rows else None,
        }
    kinds = [about["same_strength"], about["same_size"]]
    limits = [number_text(kind["moved"]) for kind in kinds]
    is_beyond = len(random) >= LEAST_RANDOM and all(
        abs(moved) > kind["moved"] and (value or 0.0) > kind["taken"] for kind in kinds
    )
    return {
        "what": f"share of |LALS| in layer {found['layer'] + 1} that the {kept['edit']} edit takes away; it moves the "
        f"log odds of the answers by {moved:+.2f}, {len(random)} random directions by at most {limits[0]}, and where "
        f"they change states as much, {limits[1]} (percentile {PERCENTILE})",
        **kept["taken"],
        "moved": kept["moved"],
        "gap": kept["gap_taken"],
        "random": about,
        "bar": f"at least {LEAST_TAKEN:g}; share and move beyond percentile {PERCENTILE} of at least {LEAST_RANDOM} "
        "random directions of both kinds",
        "holds": bool(is_beyond and value is not None and value >= LEAST_TAKEN),
    }


def _costs(found: Mapping[str, Any]) -> dict[str, Any]:
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


def _coloured(found: Mapping[str, Any]) -> dict[str, Any]:
    first, second = found["colours"][:2]
    against = second["leaning_against_first"]
    return {
        "what": f"LALS of pictures in {first['colour']} less that of the same in {second['colour']}",
        **against,
        "odds": second["odds_against_first"],
        "bar": "an interval above 0",
        "holds": bool(against["interval"] and against["interval"][0] > 0),
    }
