"""What an audit of directions says: the layers, the answers, and what edits of the direction change in both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lce.data.pictures.prompts import filled
from lce.edit.site_edit import DirectionEdit
from lce.evaluation.colour_shifts import colour_shifts
from lce.evaluation.direction_audit import DirectionAudit, group_named, names_class
from lce.evaluation.direction_checks import direction_checks
from lce.evaluation.leaning_curves import by_class, correlation, layer_rows, side
from lce.evaluation.shown_pictures import OPEN
from lce.localize.visual_leaning import VisualLeaning
from lce.metrics.caption_perplexity import CaptionLosses, caption_losses
from lce.metrics.items import Score
from lce.metrics.picture_means import difference_of_groups, mean_of, ratio_of, share_taken
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


class Unedited(NamedTuple):
    """LALS of the n pictures that are shown, (layers, n), and the odds of the answers, (n), of the unedited model."""

    scores: NDArray[np.float64]
    odds: NDArray[np.float64]


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
    nobody = audit.leaning(audit.nobody) if audit.nobody else None
    before = _seen(audit, None, settings.shuffles)
    layers = layer_rows(audit, before.leaning, nobody)
    edits = [audit.edit(layer, name) for name in settings.edits]
    after = [_seen(audit, edit) for edit in tqdm(edits, desc="edits", leave=False, delay=2, disable=None)]
    rows = [_row(audit, name, before, one) for name, one in zip(settings.edits, after, strict=True)]
    kept = settings.edits[0]
    by_chance = [audit.edit(layer, kept, vector) for vector in audit.random_vectors()]
    others = [audit.edit(number, kept) for number in range(len(layers)) if number != layer]
    plain = Unedited(before.leaning.scores.double().numpy(), before.odds)
    random, elsewhere = moves(audit, plain, by_chance), moves(audit, plain, others)
    classes = _classes(audit, before, after[0], nobody)
    level = 0.0 if nobody is None else float(nobody.scores[layer].mean())
    colours = colour_shifts(audit) if settings.colours else []
    found = {
        "layer": layer,
        "layers": layers,
        "before": _said(audit, before) | {"nobody": None if nobody is None else level},
        "edits": rows,
        "random": random,
        "elsewhere": elsewhere,
        "classes": classes,
        "agreement": _agreement(classes),
        "colours": colours,
        "ambiguous": "neither group" if (audit.shown.groups == OPEN).any() else "all",
    }
    return Audited({**found, "checks": direction_checks(audit, found)}, before)


def _seen(audit: DirectionAudit, edit: DirectionEdit | None, shuffles: int = 0) -> Seen:
    opened, shown = audit.shown.openers, audit.shown
    asked, chosen = audit.inputs(opened, audit.measure.prompt), audit.inputs(opened, audit.choice.prompt)
    named = audit.ambiguous & (shown.labels >= 0)
    captions = [filled(audit.settings.caption, shown.classes[label]) for label in shown.labels[named]]
    with edit.applied(audit.model.model) if edit else nullcontext():
        logs = audit.choices(chosen)
        return Seen(
            audit.leaning(opened, shuffles),
            logs[:, 0] - logs[:, 1],
            audit.answers(asked),
            audit.answers(chosen),
            caption_losses(
                audit.model, shown.among(named).openers, audit.measure.prompt, captions, audit.settings.batch_size
            ),
        )


def _said(audit: DirectionAudit, seen: Seen) -> dict[str, Any]:
    """The scores of the model as it is, or under an edit."""
    shown, layer, unsure = audit.shown, audit.layer, audit.ambiguous
    scores = seen.leaning.scores[layer].double().numpy()
    right = _rightly_named(audit, seen.described)
    return {
        "leaning": mean_of(np.abs(scores), shown.blocks).as_json(),
        "gap": difference_of_groups(scores, shown.groups, shown.blocks).as_json(),
        "separation": area_under_curve(scores, shown.groups, shown.blocks).as_json(),
        "odds": mean_of(seen.odds[unsure], shown.blocks[unsure]).as_json(),
        "odds_gap": difference_of_groups(seen.odds, shown.groups, shown.blocks).as_json(),
        "class_named": mean_of(right, shown.blocks[shown.labels >= 0]).as_json(),
        "perplexity": _perplexity(audit, seen).as_json(),
        "described": _named(audit, seen.described),
        "guessed": _named(audit, seen.guessed),
        "curves": _mean_curves(audit, seen.leaning),
    }


def _row(audit: DirectionAudit, name: str, before: Seen, after: Seen) -> dict[str, Any]:
    """What is said of an edit, with the changes that it makes, paired by picture."""
    shown, layer, unsure = audit.shown, audit.layer, audit.ambiguous
    scores = [np.abs(seen.leaning.scores[layer].double().numpy()) for seen in (before, after)]
    blocks = shown.blocks
    right = [_rightly_named(audit, seen.described) for seen in (before, after)]
    perplexity = [_perplexity(audit, seen) for seen in (before, after)]
    gaps = [
        difference_of_groups(seen.leaning.scores[layer].double().numpy(), shown.groups, blocks)
        for seen in (before, after)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        risen = perplexity[1].resampled / perplexity[0].resampled - 1
        closed = Score(1 - gaps[1].value / gaps[0].value, gaps[0].n, 1 - gaps[1].resampled / gaps[0].resampled)
    return {
        "edit": name,
        **_said(audit, after),
        "taken": share_taken(scores[0], scores[1], blocks).as_json(),
        "gap_taken": closed.as_json(),
        "moved": mean_of((after.odds - before.odds)[unsure], blocks[unsure]).as_json(),
        "class_named_change": mean_of(right[1] - right[0], blocks[shown.labels >= 0]).as_json(),
        "perplexity_change": Score(perplexity[1].value / perplexity[0].value - 1, perplexity[0].n, risen).as_json(),
    }


def unedited(audit: DirectionAudit) -> Unedited:
    """What the edits are compared with, where nothing else is wanted of the unedited model."""
    logs = audit.choices(audit.inputs(audit.shown.openers, audit.choice.prompt))
    return Unedited(audit.leaning(audit.shown.openers).scores.double().numpy(), logs[:, 0] - logs[:, 1])


def moves(audit: DirectionAudit, before: Unedited, edits: Sequence[DirectionEdit]) -> list[dict[str, Any]]:
    """What each of the ``edits`` takes of the leaning in its layer, and by how much it moves the answers."""
    if not edits:
        return []
    shown, unsure = audit.shown, audit.ambiguous
    batches = audit.inputs(shown.among(unsure).openers, audit.choice.prompt)
    choices = audit.choices_under(edits, batches, f"trying {len(edits)} directions")
    scores = audit.leaning_under(shown.openers, edits)
    rows = []
    for edit, logs, leaning in zip(edits, choices, scores, strict=True):
        layer = audit.units.sites.index(edit.site)
        moved = (logs[:, 0] - logs[:, 1]) - before.odds[unsure]
        plain = np.abs(before.scores[layer])
        rows.append({
            "layer": layer,
            "taken": share_taken(plain, np.abs(leaning), shown.blocks).as_json(),
            "separation": area_under_curve(leaning, shown.groups, shown.blocks).value,
            "moved": mean_of(moved, shown.blocks[unsure]).as_json(),
        })  # fmt: skip
    return rows


def _rightly_named(audit: DirectionAudit, said: Sequence[str]) -> NDArray[np.float64]:
    """Of each picture with a class, whether the answer names it."""
    shown = audit.shown
    return np.array([
        float(names_class(answer, shown.classes[label]))
        for answer, label in zip(said, shown.labels, strict=True) if label >= 0
    ])  # fmt: skip


def _perplexity(audit: DirectionAudit, seen: Seen) -> Score:
    named = audit.ambiguous & (audit.shown.labels >= 0)
    found = ratio_of(*seen.captions, audit.shown.blocks[named])
    return Score(float(np.exp(found.value)), found.n, np.exp(found.resampled))


def _named(audit: DirectionAudit, said: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of the pictures of each group and of neither, how many answers name which group, neither, or both."""
    names = [group.name for group in audit.attribute.groups]
    heard = {0: names[0], 1: names[1], OPEN: "neither", None: "both"}
    found: dict[str, dict[str, int]] = {}
    for number, kind in ((0, names[0]), (1, names[1]), (OPEN, "neither")):
        own = np.flatnonzero(audit.shown.groups == number).tolist()
        counts = dict.fromkeys(heard.values(), 0)
        for row in own:
            counts[heard[group_named(said[row], audit.attribute)]] += 1
        if len(own):
            found[kind] = counts
    return found


def _mean_curves(audit: DirectionAudit, leaning: VisualLeaning) -> dict[str, list[float]]:
    """The mean score of each group's pictures, and of those of neither, by layer."""
    kinds = [*((group.name, number) for number, group in enumerate(audit.attribute.groups)), ("neither", OPEN)]
    own = {name: audit.shown.groups == number for name, number in kinds}
    return {name: leaning.scores[:, rows].double().mean(1).tolist() for name, rows in own.items() if rows.any()}


def _classes(audit: DirectionAudit, before: Seen, after: Seen, nobody: VisualLeaning | None) -> list[dict[str, Any]]:
    """The classes of the ambiguous pictures: what the model holds inside, what it says, and where the two part."""
    shown, layer = audit.shown, audit.layer
    rows = by_class(audit, before.leaning, nobody)
    for row in rows:
        own = np.flatnonzero(audit.ambiguous & (shown.labels == shown.classes.index(row["class"]))).tolist()
        row["leaning"] = row["curve"][layer]
        for when, seen in (("before", before), ("after", after)):
            heard = [group_named(seen.described[i], audit.attribute) for i in own]
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
