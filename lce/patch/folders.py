"""Patches between and onto checkpoint folders, file by file, without instantiating a model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lce.checkpoint import read_file, read_tensors, resolve, tensor_names, weight_files
from lce.edits import Change, Changes, write_values_
from lce.errors import LceError
from lce.files import new_folder
from lce.patch.format import Patch

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx"}
"""Files that hold weights: rewritten if safetensors, else left behind, because they would be out of date."""


def apply_patch(model: str | Path, patch: Patch, output: str | Path) -> None:
    """Write to ``output`` a copy of the checkpoint ``model`` with ``patch`` applied.

    Raises:
        LceError: ``model`` is not the patch's base, or ``output`` exists; nothing is written then.
    """
    folder = resolve(model)
    patch.check_base(read_tensors(folder, patch.changes))
    _write(folder, patch, "new", output)


def revert_patch(model: str | Path, patch: Patch, output: str | Path) -> None:
    """Write to ``output`` a copy of the patched checkpoint ``model`` with ``patch`` taken back: the base, bit for bit.

    Raises:
        LceError: ``model`` is not the base with this patch applied, or ``output`` exists; nothing is written then.
    """
    folder = resolve(model)
    patch.check_applied(read_tensors(folder, patch.changes))
    _write(folder, patch, "old", output)


def _write(folder: Path, patch: Patch, which: str, output: str | Path) -> None:
    with new_folder(output) as temporary:
        for path in weight_files(folder):
            metadata, tensors = read_file(path)
            write_values_(tensors, {n: c for n, c in patch.changes.items() if n in tensors}, which)
            save_file(tensors, temporary / path.name, metadata=metadata or None)
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in WEIGHTS:
                shutil.copy(path, temporary / path.name)


def export_patch(base: str | Path, edited: str | Path, provenance: dict[str, Any] | None = None) -> Patch:
    """The patch that turns the checkpoint ``base`` into ``edited``: every weight whose bits differ.

    Raises:
        LceError: the two have other tensors, shapes or dtypes, or do not differ.
    """
    changes: Changes = {}
    originals = {}
    base_folder, edited_folder = resolve(base), resolve(edited)
    names = tensor_names(base_folder)
    if different := sorted(names ^ tensor_names(edited_folder)):
        raise LceError(f"{base} and {edited}: not the same tensors; {different[0]} is in one of them only")
    for name in sorted(names):
        old = read_tensors(base_folder, [name])[name]
        new = read_tensors(edited_folder, [name])[name]
        if old.shape != new.shape or old.dtype != new.dtype:
            raise LceError(
                f"{name}: {old.dtype} {tuple(old.shape)} in {base}, {new.dtype} {tuple(new.shape)} in {edited}"
            )
        indices = (_bits(old) != _bits(new)).nonzero().flatten()
        if len(indices):
            changes[name] = Change(indices, old.flatten()[indices], new.flatten()[indices], tuple(old.shape))
            originals[name] = old
    if not changes:
        raise LceError(f"{base} and {edited}: have the same weights; there is nothing to put in a patch")
    return Patch.create(changes, originals, {"target": str(base), "edited": str(edited), **(provenance or {})})


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """Flat, as integers: 0.0 and -0.0 differ."""
    flat = tensor.flatten()
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return flat.view(integers[flat.element_size()]) if flat.is_floating_point() else flat


def describe(patch: Patch, size: int) -> str:
    """A summary for people: provenance, the largest changes by parameter, size of the file in bytes."""
    total = sum(torch.Size(change.shape).numel() for change in patch.changes.values())
    lines = [
        f"{patch.count:,} weights in {len(patch.changes)} parameters "
        f"({patch.count / total:.3%} of those parameters), {size / 1024:,.0f} KiB",
        f"base fingerprint {patch.base_fingerprint}",
        *(f"{key}: {value}" for key, value in patch.provenance.items()),
        "",
        f"{'parameter':<60} {'changed':>9} {'share':>8} {'mean |Δ|':>10}",
    ]
    for name, change in patch.changes.items():
        step = (change.new.float() - change.old.float()).abs().mean().item()
        share = len(change.indices) / torch.Size(change.shape).numel()
        lines.append(f"{name:<60} {len(change.indices):>9,} {share:>8.3%} {step:>10.2e}")
    return "\n".join(lines)
