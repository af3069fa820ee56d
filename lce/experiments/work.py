"""What a worker does: the cells of one group, one after the other, with models that are loaded once.

A cell's result is one JSON file, written when it is whole. A cell that fails leaves its reason in a file beside it and
does not stop the next one.
"""

from __future__ import annotations

import logging
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from scipy.spatial import distance
from torch import Tensor

from lce import diff
from lce.editing import Pair, find_model, load_pair
from lce.edits import Changes, changed_values, edit, write_values_
from lce.errors import LceError
from lce.evaluation import Evaluator
from lce.experiments.downstream import Task, fine_tune, load_task
from lce.experiments.study import (
    ANTI_STEREOTYPICAL,
    STEREOTYPICAL,
    Cell,
    StudySettings,
    cell_name,
    context_of,
    settings_for,
)
from lce.files import replaced_file, write_json
from lce.masks import Mask
from lce.metrics.suite import Scores
from lce.models import load_masked_lm
from lce.paths import CELLS, FAILED, MASK, RUNNING, SUBNETWORK, level_folder, variant_folder
from lce.pruning import iterative_magnitude_pruning
from lce.seeds import derive
from lce.selection import Selection
from lce.subnetwork import read_record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class Workplace:
    """Makes the cells of one study, and keeps what the next cell may need again."""

    def __init__(self, study: StudySettings, trainer_options: dict[str, Any]) -> None:
        self.study, self.trainer_options = study, trainer_options
        self.context = context_of(study, trainer_options)
        self.folder = Path(study.experiment) / CELLS
        self.task = lru_cache(maxsize=1)(self._load_task)
        self.pair = lru_cache(maxsize=1)(self._load_pair)
        self.selection = lru_cache(maxsize=2)(self._select)

    def path(self, cell: Cell) -> Path:
        return self.folder / f"{cell_name(self.study, self.context, cell)}.json"

    def make(self, cell: Cell) -> None:
        """Make ``cell`` unless it exists; leave its result, or the reason why there is none."""
        path = self.path(cell)
        if path.exists():
            return
        failed = path.with_suffix(FAILED)
        started = time.perf_counter()
        with _marked(path.with_suffix(RUNNING)):
            try:
                result = MAKERS[cell.kind](self, cell)
            except Exception as error:
                log.warning("%s failed: %s", path.stem, error)
                trace = "" if isinstance(error, LceError) else traceback.format_exc()
                write_failure(failed, f"{type(error).__name__}: {error}", trace)
                return
            seconds = round(time.perf_counter() - started, 2)
            write_json(path, {"cell": cell.known(), **result, "seconds": seconds, "machine": platform.node()})
        failed.unlink(missing_ok=True)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_masked_lm(self.study.base)[1]

    @cached_property
    def evaluator(self) -> Evaluator:
        settings = settings_for(self.study, Cell("measure"))
        return Evaluator(settings, self.trainer_options, self.tokenizer)

    def _load_task(self, name: str) -> Task:
        return load_task(name, self.study.data.downloads)

    def _load_pair(self, seed: int, sparsity: float, target: str, reference: str) -> Pair:
        settings = settings_for(self.study, Cell("edit", seed, sparsity))
        return load_pair(replace(settings, target=target, reference=reference))

    def _select(
        self, place: tuple[int, float, str, str], localization: str, k: float | str | None, layers: int | None
    ) -> Selection:
        pair = self.pair(*place)
        if isinstance(k, str):  # as many as the mask-based selection has
            k = diff.mask_based(pair.target, pair.reference).count
        size = self.study.k if k is None else k
        selection = diff.localize(localization, pair.target, pair.reference, size)
        return selection if layers is None else selection.in_last_layers(layers)


@contextmanager
def _marked(path: Path) -> Iterator[None]:
    """A file that says that a cell is under way, for the while."""
    write_json(path, {"machine": platform.node(), "process": os.getpid()})
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def write_failure(path: Path, reason: str, trace: str = "") -> None:
    """Write why there is no result; the first line is the reason."""
    with replaced_file(path) as temporary:
        temporary.write_text(f"{' '.join(reason.split())}\n{trace}", encoding="utf-8")


def train(workplace: Workplace, cell: Cell) -> dict[str, Any]:
    """One level of a variant; those before it exist, or are made on the way."""
    settings = settings_for(workplace.study, cell)
    settings.sparsities = [sparsity for sparsity in workplace.study.sparsities if sparsity <= settings.sparsity]
    iterative_magnitude_pruning(settings, workplace.trainer_options)
    return read_record(
        level_folder(variant_folder(settings.experiment, settings.seed, settings.variant), settings.sparsity)
    )


def measure(workplace: Workplace, cell: Cell) -> dict[str, Any]:
    model, _ = load_masked_lm(_subnetwork_folder(workplace.study, cell))
    return {"scores": workplace.evaluator(model)}


def compare(workplace: Workplace, cell: Cell) -> dict[str, Any]:
    """Where the two subnetworks differ, by layer and component."""
    place = _place(cell)
    selections = {name: workplace.selection(place, name, None, None) for name in diff.LOCALIZATIONS}
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


def overlap(workplace: Workplace, cell: Cell) -> dict[str, Any]:
    """Jaccard similarities of masks over seeds and between variants, and of selections over seeds."""
    study = workplace.study
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
        assert cell.sparsity is not None, "an overlap is one of a sparsity"
        chosen: dict[str, list[Tensor]] = {name: [] for name in diff.LOCALIZATIONS}
        for seed, (name, marks) in product(study.seeds, chosen.items()):
            place = (seed, cell.sparsity, STEREOTYPICAL, ANTI_STEREOTYPICAL)
            marks.append(_marks(workplace.selection(place, name, None, None)))
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


def measure_edit(workplace: Workplace, cell: Cell) -> dict[str, Any]:
    pair, changes, about = edited(workplace, cell)
    scores: Scores = workplace.evaluator(pair.model, changes)
    return {"scores": scores, **about}


def tune(workplace: Workplace, cell: Cell) -> dict[str, Any]:
    """A model, unedited or edited, fine-tuned on a task."""
    study = workplace.study
    task = workplace.task(str(cell.task))
    options = (workplace.tokenizer, task, study.downstream, cell.seed or 0, workplace.trainer_options)
    if cell.variant:
        model, _ = load_masked_lm(_subnetwork_folder(study, cell))
        return {"scores": fine_tune(model, *options)}
    pair, changes, about = edited(workplace, cell)
    parameters = dict(pair.model.named_parameters())
    write_values_(parameters, changes, "new")
    try:
        return {"scores": fine_tune(pair.model, *options), **about}
    finally:
        write_values_(parameters, changes, "old")


def edited(workplace: Workplace, cell: Cell) -> tuple[Pair, Changes, dict[str, Any]]:
    """The pair, what the edit of ``cell`` changes in its target, and how many weights that are."""
    place = _place(cell)
    pair = workplace.pair(*place)
    informed = workplace.selection(place, cell.localization, cell.k, cell.last_layers)
    selection = informed
    if cell.control != "none":
        seed = derive(cell.seed or 0, cell.draw or 0)
        selection = diff.uninformed(
            informed, pair.target, pair.reference, cell.strategy or "", seed, is_matched=cell.control == "matched"
        )
    make = edit if cell.control == "none" else changed_values
    changes = dict(
        make(cell.strategy or "", selection, pair.target, pair.reference, 1.0 if cell.alpha is None else cell.alpha)
    )
    counts = {"selected": informed.count, "selected_share": informed.share}
    counts["changed"] = sum(len(change.moved) for change in changes.values())
    return pair, changes, counts


def _place(cell: Cell) -> tuple[int, float, str, str]:
    """Seed, sparsity, target and reference of a cell that has them."""
    known = cell.known()
    return known["seed"], known["sparsity"], known["target"], known["reference"]


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
