"""What an audit of attention heads has to show, each as a value with its interval, a bar, and whether it holds.

H1 the model is biased, and sees what it is to see. H2 the edit of the selected heads takes a part of the bias away, at
a small cost. H3 random heads of the same layers do less. H4 the other attributes, measured by the same command. H5 a
head that was made to carry the attribute is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lce.evaluation.planted_head import Planted
from lce.metrics.group_association import ACCURACY, CORRECTED_V, LEAN

PERCENTILE = 99
"""Percentile of the null that a bias has to exceed."""
LEAST_ACCURACY = 0.75
LEAST_REDUCED = 0.2
MOST_ACCURACY_LOST = 0.01
LEAST_BEYOND = 0.95
"""Share of the random sets that leave more of the bias than the selected heads do."""
MEASURES = (LEAN, CORRECTED_V)


def reduction(before: float, after: float) -> float:
    """By which share of itself a bias shrinks: 1 is all of it, below 0 it grows; a reversed one counts as one."""
    return 1 - abs(after) / abs(before) if before else 0.0


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
    lean, corrected = before["scores"][LEAN], before["scores"][CORRECTED_V]
    null = before["null"]
    accuracy = before["plain_accuracy"]
    is_biased = all(before["scores"][name]["value"] > null[name] for name in MEASURES)
    shares = {name: kept["reduced"][name] for name in MEASURES}
    best = max(MEASURES, key=lambda name: shares[name]["value"])
    lost = -kept["differences"][ACCURACY]["value"]
    beyond = [
        float(np.mean([row["reduced"][name] < shares[name]["value"] for row in random] or [0])) for name in MEASURES
    ]
    return {
        "H1": {
            "what": f"lean of the unedited model by {attribute}",
            **_of(lean),
            "null": null[LEAN],
            CORRECTED_V: {**_of(corrected), "null": null[CORRECTED_V]},
            ACCURACY: accuracy,
            "bar": f"lean above {null[LEAN]:.3f} and corrected V above {null[CORRECTED_V]:.3f}, the percentile "
            f"{PERCENTILE} of their null; accuracy at least {LEAST_ACCURACY:g}",
            "holds": bool(is_biased and accuracy["value"] is not None and accuracy["value"] >= LEAST_ACCURACY),
        },
        "H2": {
            "what": f"share of the bias that the {kept['edit']} edit of the selected heads takes away ({best})",
            **shares[best],
            "by_measure": shares,
            "accuracy_change": -lost,
            "bar": f"at least {LEAST_REDUCED:g}, accuracy down by at most {100 * MOST_ACCURACY_LOST:g} point",
            "holds": bool(shares[best]["value"] >= LEAST_REDUCED and lost <= MOST_ACCURACY_LOST),
        },
        "H3": {
            "what": f"share of the random sets of the same layers that take less away ({best})",
            "value": beyond[MEASURES.index(best)],
            "interval": None,
            "n": len(random),
            "by_measure": dict(zip(MEASURES, beyond, strict=True)),
            "bar": f"above {LEAST_BEYOND:g}",
            "holds": bool(random) and beyond[MEASURES.index(best)] > LEAST_BEYOND,
        },
        **({"H4": _compared(others, attribute)} if len(others) > 1 else {}),
        "H5": {
            "what": f"place by score of a head that was made to carry {attribute} (layer {planted.layer + 1}, head "
            f"{planted.head})",
            "value": planted.place,
            "interval": None,
            "n": planted.heads,
            "bar": "the first of all heads",
            "holds": planted.place == 1,
        },
    }


def _of(score: Mapping[str, Any]) -> dict[str, Any]:
    return {key: score[key] for key in ("value", "interval", "n")}


def _compared(others: Mapping[str, Any], attribute: str) -> dict[str, Any]:
    """The other attribute with the largest bias, against this one; both leans are cross-fitted."""
    name = max((name for name in others if name != attribute), key=lambda name: others[name][LEAN]["value"])
    is_weaker = others[name][LEAN]["value"] < others[attribute][LEAN]["value"]
    return {
        "what": f"lean by {name}, cross-fitted: {'weaker' if is_weaker else 'not weaker'} than that by {attribute}",
        **_of(others[name][LEAN]),
        "others": dict(others),
        "bar": "measured by the same command",
        "holds": others[name][LEAN]["value"] is not None,
    }
