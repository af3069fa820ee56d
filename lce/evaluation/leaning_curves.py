"""What the layers of a vision-language model say of pictures: curves over depth, and how well groups are told apart.

A curve's regime goes by its sides in the middle of the model and at its end, each of them of the first group, of the
second, or neither within `NEUTRAL` (the zone of Marin-Llobet, Henniger and Banaji 2026).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lce.evaluation.direction_audit import DirectionAudit
from lce.evaluation.picture_answers import NEITHER
from lce.evaluation.picture_probe import probe_scores
from lce.evaluation.shown_pictures import OPEN
from lce.localize.visual_leaning import VisualLeaning
from lce.metrics.items import defined
from lce.metrics.picture_means import mean_of
from lce.metrics.separation import area_under_curve, separation

NEUTRAL = 0.15
"""LALS within which a state leans towards neither group."""
MIDDLE = (0.25, 0.75)
"""Where the middle of a model begins and ends, as shares of its depth."""
WITHOUT_PEOPLE = "without people"
"""What the curve of pictures without people is called."""


def side(value: float) -> int:
    """1 for the first group, −1 for the second, 0 for neither."""
    return 0 if abs(value) < NEUTRAL else 1 if value > 0 else -1


def sides(curve: Sequence[float]) -> tuple[int, int]:
    """The side of a curve over layers in the middle, where it is farthest from 0, and that in the last layer."""
    first, last = (round(share * len(curve)) for share in MIDDLE)
    middle = max(curve[first : max(last, first + 1)], key=abs)
    return side(middle), side(curve[-1])


def regime(curve: Sequence[float], groups: Sequence[str]) -> str:
    """agreement with the name of a group, divergence, or neutral, by `sides`."""
    middle, end = sides(curve)
    if middle == end:
        return f"agreement ({groups[0 if end > 0 else 1]})" if end else "neutral"
    return "divergence"


def layer_rows(audit: DirectionAudit, found: VisualLeaning, without: VisualLeaning | None) -> list[dict[str, Any]]:
    """For each layer, the curves of the groups, and how well the groups are told apart.

    Args:
        found: of the pictures that are shown.
        without: of the pictures without people; None if there are none.
    """
    shown = audit.shown
    kinds = {group.name: shown.groups == number for number, group in enumerate(audit.attribute.groups)}
    kinds[NEITHER] = shown.groups == OPEN
    is_drawn = shown.groups != OPEN
    classes, groups = np.where(shown.labels >= 0, shown.labels, -1), shown.groups[is_drawn]
    rows = []
    for layer, scores in enumerate(found.scores.double().numpy()):
        curves = {name: mean_of(scores[own], shown.blocks[own]) for name, own in kinds.items() if own.any()}
        if without:
            values = without.scores[layer].double().numpy()
            curves[WITHOUT_PEOPLE] = mean_of(values, np.arange(len(values)))
        chance = [separation(one, shown.groups) for one in found.shuffled[:, layer].numpy()]
        row = {
            **audit.by_layer[layer],
            "measured": area_under_curve(scores, shown.groups, shown.blocks).as_json(),
            "shuffled": _spread(chance),
            "curves": {name: score.as_json() for name, score in curves.items()},
        }
        if len(set(classes[is_drawn].tolist())) > 1:
            probed = probe_scores(found.means[layer][is_drawn], groups, classes[is_drawn])
            blocks = shown.blocks[is_drawn]
            row["probe"] = area_under_curve(probed, groups, blocks).as_json()
            row["correlation"] = correlation(probed, scores[is_drawn])
        rows.append(row)
    return rows


def correlation(one: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Pearson's r; None where one of them does not vary."""
    if len(one) < 3 or not one.std() or not other.std():
        return None
    return defined(float(np.corrcoef(one, other)[0, 1]))


def by_class(audit: DirectionAudit, found: VisualLeaning, without: VisualLeaning | None) -> list[dict[str, Any]]:
    """For each class of the ambiguous pictures, its curve, as it is and less that of pictures without people, and the
    regimes of both.
    """
    shown, names = audit.shown, [group.name for group in audit.attribute.groups]
    rows = []
    for number, name in enumerate(shown.classes):
        own = audit.ambiguous & (shown.labels == number)
        if not own.any():
            continue
        raw = found.scores[:, own].double().mean(1)
        less = raw if without is None else raw - without.scores.double().mean(1)
        curve = less.tolist()
        rows.append({
            "class": name,
            "n": int(own.sum()),
            "curve": curve,
            "regime": regime(curve, names),
            "filtered": sides(curve) == (1, -1),
            "raw_regime": regime(raw.tolist(), names),
            "raw_filtered": sides(raw.tolist()) == (1, -1),
        })  # fmt: skip
    return rows


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation, and the percentiles 2.5 and 97.5; all None without any."""
    if not values:
        return {"mean": None, "deviation": None, "interval": None, "n": 0}
    low, high = np.percentile(values, (2.5, 97.5))
    return {
        "mean": float(np.mean(values)), "deviation": float(np.std(values)), "interval": [float(low), float(high)],
        "n": len(values),
    }  # fmt: skip
