"""Two models in folders, and their weight matrices as one vector."""

from __future__ import annotations

from pathlib import Path

import torch
from architectures import saved
from transformers import PreTrainedModel

from lce.localize.selection import Selection
from lce.models.layers import is_prunable
from lce.storage.checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def pair(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The target in many shards, the reference in one file."""
    return saved(kind, folder / "target", 0, dtype, "6KB"), saved(kind, folder / "reference", 1, dtype)


def matrices(model: PreTrainedModel, folder: Path) -> dict[str, torch.Tensor]:
    """In the order of the checkpoint's files."""
    names = [name for name, entry in Checkpoint(folder).entries.items() if is_prunable(name, entry.shape)]
    return {name: model.get_parameter(name).detach() for name in names}


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten().float() for tensor in tensors.values()])


def marks(selection: Selection, names: list[str]) -> torch.Tensor:
    whole = {name: torch.zeros(selection.shapes[name], dtype=torch.bool) for name in names}
    for name in names:
        whole[name].view(-1)[selection.indices[name]] = True
    return torch.cat([mark.flatten() for mark in whole.values()])
