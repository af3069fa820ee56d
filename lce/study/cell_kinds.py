"""How each kind of cell is made, by a worker with its models at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from scipy.spatial import distance
from torch import Tensor

from lce.edit.weight_edit import WeightEdit
from lce.foundations.paths import MASK, SUBNETWORK, level_folder, variant_folder
from lce.foundations.seeds import derive
from lce.localize.pair import find_model
from lce.localize.selection import Selection
from lce.localize.weights import LOCALIZATIONS
from lce.models.loading import load_language_model
from lce.storage.in_memory import read_record
from lce.storage.masks import Mask
from lce.study import unit_cells
from lce.study.cells import Cell, settings_for
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
    "features": unit_cells.measure_features,
    "heads": unit_cells.measure_heads,
    "random-heads": unit_cells.measure_random_heads,
    "directions": unit_cells.measure_directions,
    "random-directions": unit_cells.measure_random_directions,
}
