"""Two pruned subnetworks of a made-up model, in memory."""

from __future__ import annotations

import torch

from lce.storage.in_memory import Subnetwork, pruned_values
from lce.storage.masks import Mask, magnitude_prune

SHAPES = {
    "bert.encoder.layer.0.attention.output.dense.weight": (8, 6),
    "bert.encoder.layer.0.intermediate.dense.weight": (10, 8),
    "bert.encoder.layer.1.attention.output.dense.weight": (8, 6),
    "bert.encoder.layer.1.intermediate.dense.weight": (10, 8),
}


def subnetwork(folder: str, seed: int, sparsity: float = 0.3) -> Subnetwork:
    random = torch.Generator().manual_seed(seed)
    trained = {name: torch.randn(shape, generator=random) for name, shape in SHAPES.items()}
    if not sparsity:
        empty = {name: torch.empty(0) for name in SHAPES}
        return Subnetwork(folder, trained, Mask.dense(trained), empty)
    mask = magnitude_prune(trained, Mask.dense(trained), sparsity)
    weights = {name: tensor * mask.kept[name] for name, tensor in trained.items()}
    return Subnetwork(folder, weights, mask, pruned_values(mask, trained))
