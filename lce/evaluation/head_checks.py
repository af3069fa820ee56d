"""What an audit of attention heads has to show, each as a value with its interval, a bar, and whether it holds.

H1 the model is biased, and sees what it is to see. H2 the edit of the selected heads takes a part of the bias away, at
a small cost. H3 random heads of the same layers do less. H4 the other attributes, measured by the same command. H5 a
head that was made to carry the attribute is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lce.evaluation.planted_head import STRENGTHS, Planted
from lce.foundations.labels import number_text
from lce.metrics.group_association import ACCURACY, CORRECTED_V, LEAN

PERCENTILE = 99
"""Percentile of the null that a bias has to exceed."""
LEAST_ACCURACY = 0.75
LEAST_REDUCED = 0.2
MOST_ACCURACY_LOST = 0.01
ROUNDING = 1e-9
"""By which a difference of two accuracies may be off: 589 and 583 of 600 are a point apart."""
LEAST_BEYOND = 0.95
"""Share of the random sets that leave more of the bias than the selected heads do."""
LEAST_SETS = 19
"""Random sets below which a percentile of 95 cannot be told from chance."""
MEASURES = (LEAN, CORRECTED_V)
TITLES = {LEAN: "lean", CORRECTED_V: "corrected V"}


def reduction(before: float, after: float) -> float:
    """By which share of itself a bias shrinks: 1 is all of it, below 0 it grows; a reversed one counts as one."""
    return 1 - abs(after) / abs(before) if before else 0.0


def keeps_accuracy(change: Any) -> Any:
    """Whether an accuracy that changes by ``change``, a number or several, falls by at most what is allowed."""
    return change >= -MOST_ACCURACY_LOST - ROUNDING


def head_checks(
    before: Mapping[str, Any], kept: Mapping[str, Any], random: Sequence[Mapping[str, Any]], others: Mapping[str, Any],
    attribute: str, planted: Planted,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The checks H1 to H5.

    Args:
        before: the unedited model's scores, with ``null``: percentiles by measure, and ``plain_accuracy``.
        kept: the row of the edit that is kept.
        random: the rows of the random sets under the same edit.
        others: the cross-fitted scores of each attribute, this one's among them.
        planted: the positive control.
    """
    shares = {name: kept["reduced"][name] for name in MEASURES}
    present = [name for name in MEASURES if _exceeds(before, name)]
    reduced = [name for name in present if shares[name]["value"] >= LEAST_REDUCED]
    measure = next(iter([*reduced, LEAN]))
    change = kept["differences"][ACCURACY]["value"]
    beyond = {name: _beyond(random, name, shares[name]["value"]) for name in MEASURES}
    return {
        "H1": _biased(before, attribute),
        "H2": {
            "what": f"share of the {TITLES[measure]} that the {kept['edit']} edit of the selected heads takes away",
            **shares[measure],
            "by_measure": shares,
            "accuracy_change": change,
            "bar": f"at least {LEAST_REDUCED:g} of the lean, or of V, where it exceeds its null; accuracy down by at "
            f"most {100 * MOST_ACCURACY_LOST:g} point",
            "holds": bool(reduced and change is not None and keeps_accuracy(change)),
        },
        "H3": {
            "what": f"share of the random sets of the same layers that take less of the {TITLES[measure]} away",
            "value": beyond[measure],
            "interval": None,
            "n": len(random),
            "by_measure": beyond,
            "bar": f"above {LEAST_BEYOND:g}, of at least {LEAST_SETS} sets",
            "holds": len(random) >= LEAST_SETS and (beyond[measure] or 0.0) > LEAST_BEYOND,
        },
        **({"H4": _compared(others, attribute)} if len(others) > 1 else {}),
        "H5": {
            "what": f"strength from which on a head that was made to carry {attribute} (layer {planted.layer + 1}, "
            f"head {planted.head}) is named first, as a multiple of the embeddings' spread",
            "value": planted.strength,
            "interval": None,
            "n": len(STRENGTHS),
            "bar": f"at most {STRENGTHS[-1]:g}",
            "holds": planted.strength is not None,
        },
    }


def _exceeds(scores: Mapping[str, Any], name: str) -> bool:
    """Whether a measure of the unedited model lies beyond its null."""
    value, limit = scores["scores"][name]["value"], scores["null"][name]
    return value is not None and limit is not None and bool(value > limit)


def _biased(before: Mapping[str, Any], attribute: str) -> dict[str, Any]:
    scores, null, accuracy = before["scores"], before["null"], before["plain_accuracy"]
    limits = " and ".join(f"{TITLES[name]} above {number_text(null[name], '.3f')}" for name in MEASURES)
    sees = accuracy["value"] is not None and accuracy["value"] >= LEAST_ACCURACY
    return {
        "what": f"lean of the unedited model by {attribute}",
        **_of(scores[LEAN]),
        "null": null[LEAN],
        CORRECTED_V: {**_of(scores[CORRECTED_V]), "null": null[CORRECTED_V]},
        ACCURACY: accuracy,
        "bar": f"{limits}, the percentile {PERCENTILE} of their null; accuracy at least {LEAST_ACCURACY:g}",
        "holds": bool(sees and all(_exceeds(before, name) for name in MEASURES)),
    }


def _beyond(random: Sequence[Mapping[str, Any]], name: str, share: float) -> float | None:
    """The share of the random sets that take less of a measure away than ``share``; None without any."""
    return float(np.mean([row["reduced"][name] < share for row in random])) if random else None


def _of(score: Mapping[str, Any]) -> dict[str, Any]:
    return {key: score[key] for key in ("value", "interval", "n")}


def _compared(others: Mapping[str, Any], attribute: str) -> dict[str, Any]:
    """The other attribute with the largest lean, against this one; both leans are cross-fitted."""
    name = max((name for name in others if name != attribute), key=lambda name: others[name][LEAN]["value"])
    said = []
    for one in (name, attribute):
        value, limit = others[one][LEAN]["value"], others[one]["null"][LEAN]
        said.append(f"{one} {number_text(value, '.3f')} ({'above' if value > limit else 'within'} its null)")
    is_weaker = others[name][LEAN]["value"] < others[attribute][LEAN]["value"]
    return {
        "what": f"cross-fitted lean by {said[0]}: {'weaker' if is_weaker else 'stronger'} than by {said[1]}",
        **_of(others[name][LEAN]),
        "others": dict(others),
        "bar": "measured by the same command",
        "holds": others[name][LEAN]["value"] is not None,
    }
