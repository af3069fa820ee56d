"""A tiny model, a patch for it, and a reader of patch files that shares no code with lce's."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from architectures import made
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from lce.edits import Change, step
from lce.patch import Patch

NAME = "bert.encoder.layer.1.output.dense.weight"
OTHER = "bert.encoder.layer.0.attention.self.key.weight"
POSITIONS = {NAME: [0, 7, 100, 400], OTHER: [5]}


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def patch_for(
    model: PreTrainedModel,
    alpha: float = 2.0,
    positions: dict[str, list[int]] = POSITIONS,
    step_size: float = 0.5,
    **provenance: object,
) -> Patch:
    """Moves some weights by α · ``step_size``."""
    base = weights(model)
    changes = {}
    for name, places in positions.items():
        indices = torch.tensor(places)
        old = base[name].flatten()[indices]
        full = old + step_size
        changes[name] = Change(indices, step(old, full, alpha), tuple(base[name].shape), old, full)
    about = {"target": "tiny", "strategy": "extrapolation", "alpha": alpha, "localization": "mask", **provenance}
    return Patch.create(changes, base, about)


def model() -> PreTrainedModel:
    return made("bert")


def literally_applied(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the README's recipe makes of ``tensors``."""
    edited = {name: tensor.clone() for name, tensor in tensors.items()}
    patch = load_file(path)
    for name in (key.removeprefix("steps/") for key in patch if key.startswith("steps/")):
        steps = patch[f"steps/{name}"]
        used = steps != torch.iinfo(steps.dtype).max
        edited[name].view(-1)[(steps.long() + used).cumsum(0)[used] - 1] = patch[f"new/{name}"]
    return edited


def record(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as content:
        about: dict[str, object] = json.loads(content.metadata()["lce"])
    return about


def rewritten(path: Path, tensors: dict[str, torch.Tensor | None], **changed: object) -> Path:
    """The patch file with some tensors replaced or (None) left out, and some metadata changed."""
    merged = load_file(path) | tensors
    kept = {name: tensor for name, tensor in merged.items() if tensor is not None}
    out = path.with_name("bad.safetensors")
    save_file(kept, out, metadata={"lce": json.dumps(record(path) | changed)})
    return out
