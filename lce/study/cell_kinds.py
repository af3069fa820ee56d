"""How each kind of cell is made, by a worker with its models at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lce.edit.weight_edit import WeightEdit
from lce.foundations.paths import level_folder, variant_folder
from lce.foundations.seeds import derive
from lce.localize.pair import find_model
from lce.localize.weights import LOCALIZATIONS
from lce.models.loading import load_language_model
from lce.storage.in_memory import read_record
from lce.study import overlaps, unit_cells
from lce.study.cells import Cell, settings_for
from lce.study.downstream import fine_tune
from lce.study.settings import StudySettings
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
    return {"scores": cache.evaluator.unedited(_unedited(cache.study, cell))}


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
    "overlap": overlaps.overlap,
    "edit": measure_edit,
    "finetune": tune,
    "features": unit_cells.measure_features,
    "heads": unit_cells.measure_heads,
    "random-heads": unit_cells.measure_random_heads,
    "directions": unit_cells.measure_directions,
    "random-directions": unit_cells.measure_random_directions,
}
