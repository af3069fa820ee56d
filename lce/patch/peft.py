"""A patch as a PEFT adapter: SHiRA (Bhardwaj et al. 2024), whose adapters are sparse, too.

SHiRA adds a sparse matrix to each weight matrix of a set of nn.Linear modules: the same rank r for all of them, and
r · (in + out) entries in a module. A patch goes into the smallest r that takes its fullest module; what is left over of
a module's entries holds zeros at positions that the patch leaves alone.
"""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.models.kinds import read_config, refusing
from lce.models.loading import fitting
from lce.patch.check import check
from lce.patch.format import Patch
from lce.patch.loading import model_class
from lce.patch.on_modules import in_torch
from lce.storage.changes import Change
from lce.storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import nn

PREFIX = "base_model.model."


def to_peft(patch: Patch, base: str | Path, output: str | Path) -> int:
    """Write ``patch`` as a SHiRA adapter of the model ``base`` into the folder ``output``; return its rank r.

    ``PeftModel.from_pretrained(model, output)`` gives the patched model; its scale s gives old + s · (new − old).

    Raises:
        LceError: SHiRA cannot express the patch: it has no old values, or changes something that is no weight matrix of
            an nn.Linear module, or too much of one; nothing is written then.
    """
    if not patch.has_old:
        raise LceError("an adapter adds differences, and this patch was made without the old values")
    _check_modules(patch, base)
    check(patch.changes, Checkpoint(base))
    needed = {name: ceil(about.count / sum(about.shape)) for name, about in patch.parameters.items()}
    rank = max(needed.values())
    for name, about in patch.parameters.items():
        if rank * sum(about.shape) > about.size:
            fullest = max(needed, key=lambda other: needed[other])
            raise LceError(
                f"{name}: too dense for SHiRA, which has one rank for all modules; {fullest} needs r = {rank}, and "
                f"{rank} · {sum(about.shape)} entries do not fit into {about.size:,}; ship the patch itself"
            )
    tensors = {}
    for name, about in patch.parameters.items():
        module = PREFIX + name.removesuffix(".weight")
        weights, indices = _entries(in_torch(patch.changes, name), rank * sum(about.shape))
        tensors[f"{module}.shira_weight"], tensors[f"{module}.shira_indices"] = weights, indices
    config = {
        "peft_type": "SHIRA",
        "base_model_name_or_path": str(base),
        "r": rank,
        "mask_type": "random",
        "target_modules": [name.removesuffix(".weight") for name in patch.parameters],
        "fan_in_fan_out": False,
        "init_weights": True,
        "inference_mode": True,
    }
    with new_folder(output) as temporary:
        save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        (temporary / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return rank


def _check_modules(patch: Patch, base: str | Path) -> None:
    """Raises LceError unless all that ``patch`` changes are weights of nn.Linear modules, in their shape."""
    modules = dict(_skeleton(base).named_modules())
    for name, about in patch.parameters.items():
        module = modules.get(name.removesuffix(".weight"))
        if module is None or not name.endswith(".weight"):
            raise LceError(f"{name}: SHiRA adapts weight matrices of modules only, and {base} has none of this name")
        if not isinstance(module, torch.nn.Linear):
            raise LceError(f"{name}: belongs to a module of type {type(module).__name__}; SHiRA adapts nn.Linear only")
        if tuple(module.weight.shape) != about.shape:
            raise LceError(f"{name}: has shape {tuple(module.weight.shape)} in {base}, {about.shape} in the patch")


def _skeleton(base: str | Path) -> nn.Module:
    """The model's modules without their weights."""
    folder, config = read_config(base)
    kind = model_class(config)
    with fitting(base, folder), refusing(f"model {base}"), torch.device("meta"):
        model: nn.Module = kind._from_config(config)
    return model


def _entries(change: Change, count: int) -> tuple[Tensor, Tensor]:
    """``count`` differences (float32), zeros where nothing changes, and their rows and columns, int32 (2, count)."""
    assert change.old is not None, "checked"
    rows, columns = change.shape
    free = torch.ones(rows * columns, dtype=torch.bool)
    free[change.indices] = False
    positions = torch.cat([change.indices, free.nonzero().flatten()[: count - len(change.indices)]])
    differences = torch.zeros(count)
    differences[: len(change.indices)] = change.new.float() - change.old.float()
    order = positions.argsort()
    positions = positions[order]
    return differences[order], torch.stack([positions // columns, positions % columns]).int().contiguous()
