"""The patch file: an ordinary safetensors file with, per parameter, where, what, and what was there before.

For each changed parameter NAME, by its name in the Hugging Face checkpoint, the file holds
    indices/NAME   sorted unique flat positions, int32 (int64 for tensors of 2³¹ weights or more)
    new/NAME       the values the edit puts there, in the parameter's dtype
    old/NAME       the values it found there, so that the edit can be taken back
and, under the metadata key "lce", JSON with the shape and the SHA-256 of each whole parameter before the edit
(the base), one fingerprint over all of these, and where the edit came from.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lce.checkpoint import combined, digest, read_record
from lce.diff import check_positions
from lce.edits import Change, Changes, write_values_
from lce.errors import LceError
from lce.files import replaced_file

if TYPE_CHECKING:
    from torch import nn

FORMAT = "lce-patch"
FORMAT_VERSION = 1
REQUIRED = {"format", "version", "parameters", "base_fingerprint", "provenance"}


@dataclass(frozen=True)
class Patch:
    """Changed weights by parameter name, the digest of each whole parameter before, and the edit's provenance."""

    changes: Changes
    base_digests: dict[str, str]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.changes:
            raise LceError("patch: changes nothing")
        for name, change in self.changes.items():
            _check_change(change, f"patch: {name}")

    @property
    def base_fingerprint(self) -> str:
        """SHA-256 over the digests of all parameters that the patch touches."""
        return combined(self.base_digests)

    @property
    def count(self) -> int:
        """Number of changed weights."""
        return sum(len(change.indices) for change in self.changes.values())

    @classmethod
    def create(cls, changes: Changes, base: Mapping[str, Tensor], provenance: dict[str, Any]) -> Patch:
        """A patch that makes ``changes`` to ``base`` (all parameters that change, as they are before)."""
        digests = {name: digest(base[name]) for name in changes}
        return cls(changes, digests, {**provenance, "library_version": version("lce")})

    def save(self, path: str | Path) -> None:
        """Write the file, atomically."""
        tensors, parameters = {}, {}
        for name, change in self.changes.items():
            small = torch.Size(change.shape).numel() < 2**31
            tensors[f"indices/{name}"] = change.indices.to(torch.int32 if small else torch.int64)
            tensors[f"new/{name}"] = change.new
            tensors[f"old/{name}"] = change.old
            parameters[name] = {"shape": list(change.shape), "sha256": self.base_digests[name]}
        record = {"format": FORMAT, "version": FORMAT_VERSION, "base_fingerprint": self.base_fingerprint}
        record |= {"parameters": parameters, "provenance": self.provenance}
        with replaced_file(path) as temporary:
            save_file(tensors, temporary, metadata={"lce": json.dumps(record)})

    @classmethod
    def load(cls, path: str | Path) -> Patch:
        """Read and check a patch file.

        Raises:
            LceError: the file is missing, damaged, no patch, of a later version, or contradicts itself.
        """
        record, tensors = read_record(path)
        try:
            return cls._parse(record, tensors)
        except LceError as error:
            raise LceError(f"{path}: {error}") from error

    @classmethod
    def _parse(cls, record: dict[str, Any], tensors: dict[str, Tensor]) -> Patch:
        if record.get("format") != FORMAT:
            raise LceError("is no lce patch")
        if record.get("version") != FORMAT_VERSION:
            raise LceError(f"has format version {record.get('version')}; this lce reads version {FORMAT_VERSION}")
        if missing := REQUIRED - set(record):
            raise LceError(f"its metadata lacks {sorted(missing)}")
        parameters = record["parameters"]
        if not isinstance(parameters, dict) or not all(map(_is_described, parameters.values())):
            raise LceError("its metadata does not give shape and sha256 of every parameter")
        if not isinstance(record["provenance"], dict):
            raise LceError("its provenance is no mapping")
        expected = {f"{part}/{name}" for name in parameters for part in ("indices", "new", "old")}
        if different := sorted(expected ^ set(tensors)):
            raise LceError(f"its tensors are not those of its metadata ({', '.join(different[:3])})")
        changes = {
            name: Change(
                indices=tensors[f"indices/{name}"].long(),
                old=tensors[f"old/{name}"],
                new=tensors[f"new/{name}"],
                shape=tuple(about["shape"]),
            )
            for name, about in parameters.items()
        }
        patch = cls(changes, {name: about["sha256"] for name, about in parameters.items()}, record["provenance"])
        if patch.base_fingerprint != record["base_fingerprint"]:
            raise LceError("its base fingerprint is not that of the parameters it lists")
        return patch

    def apply(self, model: nn.Module) -> nn.Module:
        """An edited copy of ``model``. Raises LceError, before anything is copied, if it is not the patch's base."""
        self.check_base(dict(model.named_parameters()))
        edited = copy.deepcopy(model)
        write_values_(dict(edited.named_parameters()), self.changes, "new")
        return edited

    def apply_(self, model: nn.Module) -> None:
        """As `apply`, in place."""
        parameters = dict(model.named_parameters())
        self.check_base(parameters)
        write_values_(parameters, self.changes, "new")

    def revert_(self, model: nn.Module) -> None:
        """Take the edit back, in place; LceError and no change if ``model`` is not the base with this patch applied."""
        parameters = dict(model.named_parameters())
        self.check_applied(parameters)
        write_values_(parameters, self.changes, "old")

    def check_base(self, parameters: Mapping[str, Tensor]) -> None:
        """Raises LceError unless the parameters are those that the patch was made for, bit for bit."""
        self._check_parameters(parameters, lambda name: parameters[name], "old", "not the base of this patch")

    def check_applied(self, parameters: Mapping[str, Tensor]) -> None:
        """Raises LceError unless the parameters are the base with this patch applied, bit for bit."""

        def reverted(name: str) -> Tensor:
            restored = {name: parameters[name].detach().clone()}
            write_values_(restored, {name: self.changes[name]}, "old")
            return restored[name]

        self._check_parameters(parameters, reverted, "new", "not the base with this patch applied")

    def _check_parameters(
        self, parameters: Mapping[str, Tensor], base: Callable[[str], Tensor], present: str, reason: str
    ) -> None:
        for name, change in self.changes.items():
            if name not in parameters:
                raise LceError(f"the model has no parameter {name}; it is {reason}")
            parameter = parameters[name].detach()
            if tuple(parameter.shape) != change.shape or parameter.dtype != change.new.dtype:
                raise LceError(
                    f"{name} is {parameter.dtype} {tuple(parameter.shape)} in the model, "
                    f"{change.new.dtype} {change.shape} in the patch; it is {reason}"
                )
            found = parameter.flatten()[change.indices.to(parameter.device)].cpu()
            if not torch.equal(found, getattr(change, present)) or digest(base(name)) != self.base_digests[name]:
                hint = ""
                if torch.equal(found, change.new if present == "old" else change.old):
                    hint = " (the patch is applied already)" if present == "old" else " (the patch is not applied)"
                raise LceError(f"the model's {name} has other values; it is {reason}{hint}")


def _is_described(about: Any) -> bool:
    return isinstance(about, dict) and isinstance(about.get("shape"), list) and isinstance(about.get("sha256"), str)


def _check_change(change: Change, where: str) -> None:
    if any(not isinstance(side, int) or side < 1 for side in change.shape):
        raise LceError(f"{where}: {change.shape} is no shape of a parameter")
    check_positions(change.indices, change.shape, where)
    if not len(change.indices):
        raise LceError(f"{where}: changes nothing")
    if not change.new.dtype.is_floating_point or change.new.dtype != change.old.dtype:
        raise LceError(f"{where}: old and new values have dtypes {change.old.dtype} and {change.new.dtype}")
    if change.new.shape != change.indices.shape or change.old.shape != change.indices.shape:
        raise LceError(
            f"{where}: has {len(change.indices)} indices, {change.old.numel()} old and {change.new.numel()} new values"
        )
    if not bool(torch.isfinite(change.new).all() and torch.isfinite(change.old).all()):
        raise LceError(f"{where}: holds a value that is not finite")
