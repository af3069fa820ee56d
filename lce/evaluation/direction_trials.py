"""What an audit of directions says: the layers, the answers, and what edits of the direction change in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lce.data.pictures.prompts import filled
from lce.edit.site_edit import DirectionEdit
from lce.evaluation.colour_shifts import colour_shifts
from lce.evaluation.direction_audit import DirectionAudit
from lce.evaluation.direction_checks import direction_checks
from lce.evaluation.direction_moves import Unedited, moves, random_moves
from lce.evaluation.leaning_curves import by_class, correlation, layer_rows, side
from lce.evaluation.picture_answers import NEITHER, counted, group_named, rightly_named
from lce.evaluation.shown_pictures import OPEN
from lce.localize.visual_leaning import VisualLeaning
from lce.metrics.caption_perplexity import CaptionLosses, caption_losses
from lce.metrics.items import Score
from lce.metrics.picture_means import difference_of_groups, mean_of, quotient, ratio_of
from lce.metrics.separation import area_under_curve


@dataclass(frozen=True)
class Seen:
    """What the model does with the n pictures that are shown, as it is or under an edit.

    Attributes:
        leaning: LALS by layer.
        odds: log P of the first group's answer less that of the second's, (n).
        described, guessed: what it answers to the open question and to the forced choice.
        captions: of the m ambiguous pictures that have a class.
    """

    leaning: VisualLeaning
    odds: NDArray[np.float64]
    described: list[str]
    guessed: list[str]
    captions: CaptionLosses


@dataclass(frozen=True)
class Audited:
    """All that the result says, and what figures need beside it.

    Attributes:
        before: of the unedited model.
    """

    found: dict[str, Any]
    before: Seen


def audited(audit: DirectionAudit) -> Audited:
    """Measure the model, the edits, random directions, and the directions of the other layers."""
    settings, layer = audit.settings, audit.layer
    without = audit.leaning(audit.without_people, scores_alone=True) if audit.without_people else None
    before = _seen(audit, None, settings.shuffles)
    layers = layer_rows(audit, before.leaning, without)
    edits = [audit.edit(layer, name) for name in settings.edits]
    after = [_seen(audit, edit) for edit in tqdm(edits, desc="edits", leave=False, delay=2, disable=None)]
    plain = Unedited(before.leaning.scores.double().numpy(), before.odds)
    changed = moves(audit, plain, edits)
    rows = [
        _row(audit, name, before, seen, row) for name, seen, row in zip(settings.edits, after, changed, strict=True)
    ]
    kept = settings.edits[0]
    others = [audit.edit(number, kept) for number in range(len(layers)) if number != layer]
    classes = _classes(audit, before, after[0], without)
    found = {
        "layer": layer,
        "layers": layers,
        "before": _said(audit, before),
        "edits": rows,
        "random": random_moves(audit, plain, edits[0], kept),
        "elsewhere": moves(audit, plain, others),
        "classes": classes,
        "agreement": _agreement(classes),
        "colours": colour_shifts(audit) if settings.colours else [],
        "ambiguous": "pictures of neither group" if (audit.shown.groups == OPEN).any() else "all pictures",
    }
    if audit.without_people:
        odds = audit.odds(audit.without_people)
        found["without_people"] = {"odds": mean_of(odds, np.arange(len(odds))).as_json()}
    return Audited({**found, "checks": direction_checks(audit, found)}, before)


def _seen(audit: DirectionAudit, edit: DirectionEdit | None, shuffles: int = 0) -> Seen:
    opened, shown = audit.shown.openers, audit.shown
    named = audit.ambiguous & (shown.labels >= 0)
    captions = [filled(audit.settings.caption, shown.classes[label]) for label in shown.labels[named]]
    prompt, size = audit.measure.prompt, audit.settings.batch_size
    with edit.applied(audit.model.model) if edit else nullcontext():
        return Seen(
            audit.leaning(opened, shuffles, scores_alone=edit is not None),
            audit.odds(opened),
            audit.answers(opened, prompt),
            audit.answers(opened, audit.choice.prompt),
            caption_losses(audit.model, shown.among(named).openers, prompt, captions, size),
        )


def _said(audit: DirectionAudit, seen: Seen) -> dict[str, Any]:
    """The scores of the model as it is, or under an edit."""
    shown, layer, unsure = audit.shown, audit.layer, audit.ambiguous
    scores = seen.leaning.scores[layer].double().numpy()
    right = rightly_named(shown, seen.described)
    return {
        "leaning": mean_of(np.abs(scores), shown.blocks).as_json(),
        "gap": difference_of_groups(scores, shown.groups, shown.blocks).as_json(),
        "separation": area_under_curve(scores, shown.groups, shown.blocks).as_json(),
        "odds": mean_of(seen.odds[unsure], shown.blocks[unsure]).as_json(),
        "odds_gap": difference_of_groups(seen.odds, shown.groups, shown.blocks).as_json(),
        "class_named": mean_of(right, shown.blocks[shown.labels >= 0]).as_json(),
        "perplexity": _perplexity(audit, seen).as_json(),
        "described": _counted(audit, seen.described),
        "guessed": _counted(audit, seen.guessed),
        "curves": _mean_curves(audit, seen.leaning),
    }


def _row(audit: DirectionAudit, name: str, before: Seen, after: Seen, changed: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of an edit, with the changes that it makes, paired by picture.

    Args:
        changed: what `moves` says of it.
    """
    shown, layer, blocks = audit.shown, audit.layer, audit.shown.blocks
    right = [rightly_named(shown, seen.described) for seen in (before, after)]
    perplexity = [_perplexity(audit, seen) for seen in (before, after)]
    gaps = [
        difference_of_groups(seen.leaning.scores[layer].double().numpy(), shown.groups, blocks)
        for seen in (before, after)
    ]
    risen, left = quotient(perplexity[1], perplexity[0]), quotient(gaps[1], gaps[0])
    return {
        "edit": name,
        **changed,
        **_said(audit, after),
        "gap_taken": Score(1 - left.value, left.n, 1 - left.resampled).as_json(),
        "class_named_change": mean_of(right[1] - right[0], blocks[shown.labels >= 0]).as_json(),
        "perplexity_change": Score(risen.value - 1, risen.n, risen.resampled - 1).as_json(),
    }


def _perplexity(audit: DirectionAudit, seen: Seen) -> Score:
    named = audit.ambiguous & (audit.shown.labels >= 0)
    found = ratio_of(*seen.captions, audit.shown.blocks[named])
    return Score(float(np.exp(found.value)), found.n, np.exp(found.resampled))


def _counted(audit: DirectionAudit, said: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many answers about pictures of each group name which group."""
    named = [group_named(answer, audit.words) for answer in said]
    return counted(audit.shown, named, [group.name for group in audit.attribute.groups])


def _mean_curves(audit: DirectionAudit, leaning: VisualLeaning) -> dict[str, list[float]]:
    """The mean score of each group's pictures, and of those of neither, by layer."""
    kinds = [*((group.name, number) for number, group in enumerate(audit.attribute.groups)), (NEITHER, OPEN)]
    own = {name: audit.shown.groups == number for name, number in kinds}
    return {name: leaning.scores[:, rows].double().mean(1).tolist() for name, rows in own.items() if rows.any()}


def _classes(audit: DirectionAudit, before: Seen, after: Seen, without: VisualLeaning | None) -> list[dict[str, Any]]:
    """The classes of the ambiguous pictures: what the model holds inside, what it says, and where the two part."""
    shown, layer = audit.shown, audit.layer
    rows = by_class(audit, before.leaning, without)
    for row in rows:
        own = np.flatnonzero(audit.ambiguous & (shown.labels == shown.classes.index(row["class"]))).tolist()
        row["leaning"] = row["curve"][layer]
        for when, seen in (("before", before), ("after", after)):
            heard = [group_named(seen.described[i], audit.words) for i in own]
            row[when] = {
                "odds": float(seen.odds[own].mean()),
                "said": {
                    name: heard.count(number)
                    for name, number in ((audit.attribute.groups[0].name, 0), (audit.attribute.groups[1].name, 1))
                },
            }
        inside, outside = side(row["leaning"]), int(np.sign(row["before"]["odds"]))
        row["parts"] = inside != 0 and inside != outside
    return rows


def _agreement(classes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over classes, how far the leaning inside goes with the odds of the answers."""
    inside = np.array([row["leaning"] for row in classes])
    outside = np.array([row["before"]["odds"] for row in classes])
    parted = sum(row["parts"] for row in classes)
    return {"correlation": correlation(inside, outside), "n": len(classes), "parted": parted}
