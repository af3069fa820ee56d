"""How alike the subnetworks of a study are: their masks and selections, and how far apart training left them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import torch
from scipy.spatial import distance
from torch import Tensor

from lce.foundations.paths import MASK, SUBNETWORK
from lce.localize.pair import find_model
from lce.localize.selection import Selection
from lce.localize.weights import LOCALIZATIONS
from lce.models.layers import prunable_parameters
from lce.models.loading import load_language_model
from lce.storage.masks import Mask
from lce.storage.torch_bridge import read_tensors
from lce.study.cells import Cell, settings_for
from lce.study.settings import ANTI_STEREOTYPICAL, STEREOTYPICAL, StudySettings
from lce.study.worker_cache import WorkerCache

MOVED = "from the base"
"""What the distances from the base model are called, as a share of its norm."""


def overlap(cache: WorkerCache, cell: Cell) -> dict[str, Any]:
    """Jaccard similarities of masks over seeds and between variants, and of selections over seeds; and distances."""
    study = cache.study
    found: dict[str, Any] = {"masks": {}, "variants": {}, "selections": {}, "distances": distances(study, cell)}
    for variant in study.variants:
        masks = [_mask(study, cell, variant, seed) for seed in study.seeds]
        found["masks"][variant] = [jaccard(_flat(a), _flat(b)) for a, b in combinations(masks, 2)]
    for first, second in combinations(study.variants, 2):
        found["variants"][f"{first}, {second}"] = [
            jaccard(*(_flat(_mask(study, cell, variant, seed)) for variant in (first, second))) for seed in study.seeds
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


def distances(study: StudySettings, cell: Cell) -> dict[str, list[float]]:
    """Euclidean distances between the prunable weights of subnetworks, and from the base, as lists over seeds.

    A pruned weight counts as 0. By variant: between each two seeds. By two variants: at each seed. By `MOVED`: how far
    each subnetwork is from the base under the same mask, divided by the norm of the base there. One parameter of all
    subnetworks is in memory at a time.
    """
    base, _ = load_language_model(study.base, study.trust_remote_code)
    models = list(product(study.variants, study.seeds))
    kept = {model: _mask(study, cell, *model).kept for model in models}
    squares: defaultdict[tuple[Any, Any], float] = defaultdict(float)
    norms: defaultdict[Any, float] = defaultdict(float)
    for name, original in prunable_parameters(base).items():
        values = {model: read_tensors(_folder(study, cell, *model), [name])[name].float() for model in models}
        for model in models:
            unmoved = original.detach().float() * kept[model][name]
            squares[MOVED, model] += float((values[model] - unmoved).square().sum())
            norms[model] += float(unmoved.square().sum())
        for first, second in combinations(models, 2):
            if first[0] == second[0] or first[1] == second[1]:
                squares[first, second] += float((values[first] - values[second]).square().sum())
    found: dict[str, list[float]] = {}
    for (first, second), square in squares.items():
        if first == MOVED:
            found.setdefault(MOVED, []).append((square / norms[second]) ** 0.5)
        else:
            label = first[0] if first[0] == second[0] else f"{first[0]}, {second[0]}"
            found.setdefault(label, []).append(square**0.5)
    return found


def _folder(study: StudySettings, cell: Cell, variant: str, seed: int) -> Any:
    return find_model(variant, settings_for(study, replace(cell, seed=seed)))


def _mask(study: StudySettings, cell: Cell, variant: str, seed: int) -> Mask:
    """Which weights a subnetwork keeps."""
    return Mask.load(_folder(study, cell, variant, seed) / SUBNETWORK / MASK)


def _flat(mask: Mask) -> Tensor:
    return torch.cat([kept.flatten() for kept in mask.kept.values()])


def _marks(selection: Selection) -> Tensor:
    """Which weights are selected, all in one tensor."""
    parts = []
    for name, shape in selection.shapes.items():
        marks = torch.zeros(shape, dtype=torch.bool).flatten()
        marks[selection.indices[name]] = True
        parts.append(marks)
    return torch.cat(parts)
