"""How each kind of cell is made, by a worker with its models at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from scipy.spatial import distance
from torch import Tensor

from lce.edit.weight_edit import WeightEdit
from lce.evaluation.head_audit import HeadTrial
from lce.evaluation.head_trials import row_of, unedited_scores
from lce.evaluation.site_edits import SiteEdits, Trial, direction_trial, feature_trial, random_trial, risen
from lce.foundations.paths import MASK, SUBNETWORK, level_folder, variant_folder
from lce.foundations.seeds import derive
from lce.localize.feature_settings import DirectionName, RuleName
from lce.localize.head_sets import random_sets
from lce.localize.head_settings import HeadEditName
from lce.localize.pair import find_model
from lce.localize.selection import Selection
from lce.localize.weights import LOCALIZATIONS
from lce.metrics.suite import all_scores
from lce.models.loading import load_language_model
from lce.storage.in_memory import read_record
from lce.storage.masks import Mask
from lce.study.cells import DIRECTION, Cell, settings_for
from lce.study.downstream import fine_tune
from lce.study.settings import ANTI_STEREOTYPICAL, STEREOTYPICAL, StudySettings
from lce.study.worker_cache import WorkerCache
from lce.training.pruning.imp import iterative_magnitude_pruning

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def train(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """One level of a variant; those before it exist, or are made on the way."""
    settings = settings_for(cache.study, cell)
    settings.sparsities = [sparsity for sparsity in cache.study.sparsities if sparsity <= settings.sparsity]
    level = level_folder(variant_folder(settings.experiment, settings.seed, settings.variant), settings.sparsity)
    existed = level.exists()
    iterative_magnitude_pruning(settings, cache.trainer_options)
    return {**read_record(level), "existed": existed}


def measure(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    return {"scores": cache.evaluator.scores(_unedited(cache.study, cell))}


def compare(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """Where the two subnetworks differ, by layer and component."""
    selections = {name: cache.selection(replace(cell, localization=name)) for name in LOCALIZATIONS}
    return {
        "selections": {
            name: {
                "count": selection.count,
                "share": selection.share,
                "cells": [[*where, *counts] for where, counts in selection.by_layer_and_component().items()],
            }
            for name, selection in selections.items()
        }
    }


def overlap(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """Jaccard similarities of masks over seeds and between variants, and of selections over seeds."""
    study = cache.study
    found: dict[str, Any] = {"masks": {}, "variants": {}, "selections": {}}
    for variant in study.variants:
        masks = [_mask(study, replace(cell, seed=seed, variant=variant)) for seed in study.seeds]
        found["masks"][variant] = [jaccard(a, b) for a, b in combinations(masks, 2)]
    for first, second in combinations(study.variants, 2):
        found["variants"][f"{first}, {second}"] = [
            jaccard(*(_mask(study, replace(cell, seed=seed, variant=variant)) for variant in (first, second)))
            for seed in study.seeds
        ]
    if {STEREOTYPICAL, ANTI_STEREOTYPICAL} <= set(study.variants):
        pair = replace(cell, target=STEREOTYPICAL, reference=ANTI_STEREOTYPICAL)
        chosen: dict[str, list[Tensor]] = {name: [] for name in LOCALIZATIONS}
        for seed, (name, marks) in product(study.seeds, chosen.items()):
            marks.append(_marks(cache.selection(replace(pair, seed=seed, localization=name))))
        for name, marks in chosen.items():
            similarities = [jaccard(a, b) for a, b in combinations(marks, 2)]
            shares = [float(mark.float().mean()) for mark in marks]
            found["selections"][name] = {"jaccard": similarities, "shares": shares}
    return found


def jaccard(first: Tensor, second: Tensor) -> float:
    """|first ∧ second| / |first ∨ second| of two bool tensors of shape (n,)."""
    return 1 - float(distance.jaccard(first.numpy(), second.numpy()))


def _mask(study: StudySettings, cell: Cell) -> Tensor:
    """Which weights a subnetwork keeps, all in one tensor."""
    mask = Mask.load(_subnetwork_folder(study, cell) / SUBNETWORK / MASK)
    return torch.cat([kept.flatten() for kept in mask.kept.values()])


def _marks(selection: Selection) -> Tensor:
    """Which weights are selected, all in one tensor."""
    parts = []
    for name, shape in selection.shapes.items():
        marks = torch.zeros(shape, dtype=torch.bool).flatten()
        marks[selection.indices[name]] = True
        parts.append(marks)
    return torch.cat(parts)


def measure_edit(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    edit, model = edit_of(cache, cell), cache.model(cell)
    with edit.applied(model):
        return {"scores": cache.evaluator.scores(model), **_counts(edit)}


def tune(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """A model, unedited or edited, fine-tuned on a task."""
    study = cache.study
    task = cache.task(str(cell.task))
    options = (cache.tokenizer, task, study.downstream, cell.seed or 0, cache.trainer_options)
    if cell.variant:
        return {"scores": fine_tune(_unedited(study, cell), *options)}
    edit, model = edit_of(cache, cell), cache.model(cell)
    with edit.applied(model):
        return {"scores": fine_tune(model, *options), **_counts(edit)}


def measure_features(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """The base model with an edit of its features, or of a direction, on the occupations that it was not chosen by."""
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


def edit_of(cache: WorkerCache, cell: Cell) -> WeightEdit:
    """The edit of ``cell``, or the random baseline that it asks for instead."""
    edit = WeightEdit(
        cache.selection(cell), *cache.pair(cell), str(cell.strategy), 1.0 if cell.alpha is None else cell.alpha
    )
    if cell.control == "none":
        return edit
    return edit.random_baseline(derive(cell.seed or 0, cell.draw or 0), is_matched=cell.control == "matched")


def _counts(edit: WeightEdit) -> dict[str, Any]:
    """How many weights are selected, and how many of them change."""
    changed = sum(len(change.moved) for _, change in edit.changes())
    return {"selected": edit.selection.count, "selected_share": edit.selection.share, "changed": changed}


def _unedited(study: StudySettings, cell: Cell) -> PreTrainedModel:
    return load_language_model(_subnetwork_folder(study, cell), study.trust_remote_code)[0]


def _subnetwork_folder(study: StudySettings, cell: Cell) -> Path:
    return find_model(cell.variant or "", settings_for(study, cell))


MAKERS: dict[str, Callable[[WorkerCache, Cell], dict[str, Any]]] = {
    "train": train,
    "measure": measure,
    "compare": compare,
    "overlap": overlap,
    "edit": measure_edit,
    "finetune": tune,
    "features": measure_features,
    "heads": measure_heads,
    "random-heads": measure_random_heads,
}
