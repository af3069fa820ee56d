"""A tiny model, a patch for it, and a reader of patch files that shares no code with lce's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from architectures import made
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from lce.patch import Patch
from lce.patch.on_modules import in_torch
from lce.patch.record import Parameter, base_fingerprint
from lce.patch.writer import Made, made_of, write_patch
from lce.storage.changes import Change, step
from lce.storage.torch_bridge import tensor_digest

NAME = "bert.encoder.layer.1.output.dense.weight"
OTHER = "bert.encoder.layer.0.attention.self.key.weight"
POSITIONS = {NAME: [0, 7, 100, 400], OTHER: [5]}
FOLDER = TemporaryDirectory()
NUMBERS = count()


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def patch_of(
    changes: Mapping[str, Change[torch.Tensor]],
    base: Mapping[str, torch.Tensor],
    provenance: Mapping[str, object] | None = None,
    path: Path | None = None,
    **kept: bool,
) -> Patch:
    """The patch that makes ``changes`` to ``base`` (all parameters that change), at ``path`` or somewhere else."""

    def made(name: str) -> Made:
        change = changes[name]
        return made_of(change, tensor_digest(base[name]), tensor_digest(base[name], change.indices, change.new))

    path = path or Path(FOLDER.name) / f"{next(NUMBERS)}.safetensors"
    return write_patch(path, made, {name: base[name].nbytes for name in changes}, provenance or {}, **kept)


def changes_of(patch: Patch) -> dict[str, Change[torch.Tensor]]:
    return {name: in_torch(patch.changes, name) for name in patch.parameters}


def patch_for(
    model: PreTrainedModel,
    alpha: float = 2.0,
    positions: dict[str, list[int]] = POSITIONS,
    step_size: float = 0.5,
    path: Path | None = None,
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
    return patch_of(changes, base, about, path)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def model() -> PreTrainedModel:
    return made("bert")


def literally_applied(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the recipe of docs/patches.md makes of ``tensors``."""
    edited = {name: tensor.clone() for name, tensor in tensors.items()}
    patch = load_file(path)
    for name in (key.removeprefix("steps/") for key in patch if key.startswith("steps/")):
        steps = patch[f"steps/{name}"]
        used = steps != torch.iinfo(steps.dtype).max
        edited[name].view(-1)[(steps.long() + used).cumsum(0)[used] - 1] = patch[f"new/{name}"]
    return edited


def record(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as content:
        about: dict[str, Any] = json.loads(content.metadata()["lce"])
    return about


def sha256(tensor: torch.Tensor) -> str:
    """The digest of a tensor as the format describes it."""
    kind = str(tensor.dtype).removeprefix("torch.")
    code = kind.upper().replace("BFLOAT", "BF").replace("FLOAT", "F").replace("UINT", "U").replace("INT", "I")
    content = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{code} {tuple(tensor.shape)}\n".encode() + content).hexdigest()


def rewritten(path: Path, tensors: dict[str, torch.Tensor | None], **changed: object) -> Path:
    """The patch file with some tensors replaced or (None) left out, and some metadata changed, by one who knows how.

    All digests are those of what the file holds now.
    """
    merged = load_file(path) | tensors
    kept = {name: tensor for name, tensor in merged.items() if tensor is not None}
    about = json.dumps({**record(path), "digests": {name: sha256(kept[name]) for name in kept}, **changed})
    out = path.with_name("bad.safetensors")
    save_file(kept, out, metadata={"lce": about, "lce_sha256": hashlib.sha256(about.encode()).hexdigest()})
    return out


def claiming(patch: Patch, parameters: Mapping[str, Parameter]) -> Patch:
    """A patch like ``patch`` whose file says something else of these ``parameters``."""
    about = {**patch.parameters, **parameters}
    listed = {name: asdict(parameter) for name, parameter in about.items()}
    return Patch.open(rewritten(patch.file, {}, parameters=listed, base_fingerprint=base_fingerprint(about)))


def older(path: Path, out: Path, **tensors: torch.Tensor) -> Path:
    """The patch file as lce wrote it before there were digests, with some tensors replaced."""
    about = record(path)
    del about["digests"]
    for parameter in about["parameters"].values():
        del parameter["sha256_old"]
    save_file(load_file(path) | tensors, out, metadata={"lce": json.dumps(about)})
    return out
