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

from lce.commands.editing import Pair, find_model
from lce.edit.weight_edit import changed_values, edit
from lce.foundations.paths import MASK, SUBNETWORK, level_folder, variant_folder
from lce.foundations.seeds import derive
from lce.localize import weights as diff
from lce.localize.controls import uninformed
from lce.localize.selection import Selection
from lce.metrics.suite import Scores
from lce.models.loading import load_masked_lm
from lce.storage.changes import Changes, write_values_
from lce.storage.in_memory import read_record
from lce.storage.masks import Mask
from lce.study.cells import Cell, settings_for
from lce.study.downstream import fine_tune
from lce.study.settings import ANTI_STEREOTYPICAL, STEREOTYPICAL, StudySettings
from lce.study.worker_cache import Workplace
from lce.training.pruning.imp import iterative_magnitude_pruning

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def train(place: Workplace, cell: Cell) -> dict[str, Any]:
    """One level of a variant; those before it exist, or are made on the way."""
    settings = settings_for(place.study, cell)
    settings.sparsities = [sparsity for sparsity in place.study.sparsities if sparsity <= settings.sparsity]
    level = level_folder(variant_folder(settings.experiment, settings.seed, settings.variant), settings.sparsity)
    existed = level.exists()
    iterative_magnitude_pruning(settings, place.trainer_options)
    return {**read_record(level), "existed": existed}


def measure(place: Workplace, cell: Cell) -> dict[str, Any]:
    return {"scores": place.evaluator(_unedited(place.study, cell))}


def compare(place: Workplace, cell: Cell) -> dict[str, Any]:
    """Where the two subnetworks differ, by layer and component."""
    selections = {name: place.selection(replace(cell, localization=name)) for name in diff.LOCALIZATIONS}
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


def overlap(place: Workplace, cell: Cell) -> dict[str, Any]:
    """Jaccard similarities of masks over seeds and between variants, and of selections over seeds."""
    study = place.study
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
        chosen: dict[str, list[Tensor]] = {name: [] for name in diff.LOCALIZATIONS}
        for seed, (name, marks) in product(study.seeds, chosen.items()):
            marks.append(_marks(place.selection(replace(pair, seed=seed, localization=name))))
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


def measure_edit(place: Workplace, cell: Cell) -> dict[str, Any]:
    pair, changes, about = edited(place, cell)
    scores: Scores = place.evaluator(pair.model, changes)
    return {"scores": scores, **about}


def tune(place: Workplace, cell: Cell) -> dict[str, Any]:
    """A model, unedited or edited, fine-tuned on a task."""
    study = place.study
    task = place.task(str(cell.task))
    options = (place.tokenizer, task, study.downstream, cell.seed or 0, place.trainer_options)
    if cell.variant:
        return {"scores": fine_tune(_unedited(study, cell), *options)}
    pair, changes, about = edited(place, cell)
    parameters = dict(pair.model.named_parameters())
    write_values_(parameters, changes, "new")
    try:
        return {"scores": fine_tune(pair.model, *options), **about}
    finally:
        write_values_(parameters, changes, "old")


def edited(place: Workplace, cell: Cell) -> tuple[Pair, Changes, dict[str, Any]]:
    """The pair, what the edit of ``cell`` changes in its target, and how many weights that are."""
    pair, selection = place.pair(cell), place.selection(cell)
    strategy, alpha = str(cell.strategy), 1.0 if cell.alpha is None else cell.alpha
    about = {"selected": selection.count, "selected_share": selection.share}
    change: Callable[..., Any] = edit
    if cell.control != "none":
        seed = derive(cell.seed or 0, cell.draw or 0)
        is_matched = cell.control == "matched"
        selection = uninformed(selection, pair.target, pair.reference, strategy, seed, is_matched)
        change = changed_values  # a random edit may change nothing
    changes = dict(change(strategy, selection, pair.target, pair.reference, alpha))
    return pair, changes, about | {"changed": sum(len(c.moved) for c in changes.values())}


def _unedited(study: StudySettings, cell: Cell) -> PreTrainedModel:
    return load_masked_lm(_subnetwork_folder(study, cell), study.trust_remote_code)[0]


def _subnetwork_folder(study: StudySettings, cell: Cell) -> Path:
    return find_model(cell.variant or "", settings_for(study, cell))


MAKERS: dict[str, Callable[[Workplace, Cell], dict[str, Any]]] = {
    "train": train,
    "measure": measure,
    "compare": compare,
    "overlap": overlap,
    "edit": measure_edit,
    "finetune": tune,
}
