"""The patch file, version 1: an ordinary safetensors file with, per parameter, where, what, and what was there before.

For each changed parameter NAME, by its name in the Hugging Face checkpoint, the file holds vectors with one entry per
weight, in the parameter's dtype, bit for bit:
    new/NAME    the values the edit puts there
    old/NAME    the values it found there, so that the edit can be taken back (may be left out, in all parameters)
    full/NAME   of an edit that is linear in α, the values at α = 1, so that α can be changed later (may be left out)
and the weights' flat positions:
    steps/NAME  how many weights lie between one position and the next, as `lce.indices` describes

The metadata has one key, "lce", with JSON:
    format, version     "lce-patch", 1
    parameters          by NAME: shape, dtype, count, sha256 of the whole parameter before the edit (the base), and
                        sha256_after, of the parameter after it (null if whoever made the patch did not have the base)
    base_fingerprint    SHA-256 over the lines "NAME sha256" of all parameters, sorted
    provenance          free: target, reference, localization, strategy, alpha, scores, library_version, …
A parameter's SHA-256 is that of the line "DTYPE SHAPE" (torch.float32 (768, 768)) and its bytes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lce.checkpoint import canonical, tensor_digest
from lce.edits import Change, Changes, write_values_
from lce.errors import LceError
from lce.indices import decode, encode
from lce.patch.record import (
    Parameter,
    base_fingerprint,
    check_name,
    described,
    read_parameters,
    record_of,
    with_version,
)
from lce.tensorfile import Entry, TensorWriter, bits, read_header, read_record

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Patch:
    """Changed weights by parameter, what identifies each whole parameter, and the edit's provenance.

    ``changes`` of a loaded patch are read from the file parameter by parameter, each time they are asked for.
    """

    parameters: dict[str, Parameter]
    changes: Changes
    provenance: dict[str, Any]

    @property
    def base_fingerprint(self) -> str:
        """SHA-256 over the digests of all parameters that the patch touches."""
        return base_fingerprint(self.parameters)

    @property
    def count(self) -> int:
        """Number of weights."""
        return sum(parameter.count for parameter in self.parameters.values())

    @property
    def has_old(self) -> bool:
        """Whether the patch can be reverted."""
        return self._has("old")

    @property
    def has_full(self) -> bool:
        """Whether the patch can be scaled to another α."""
        return self._has("full")

    def _has(self, part: str) -> bool:
        if isinstance(self.changes, StoredChanges):
            return part in self.changes.parts
        return all(getattr(change, part) is not None for change in self.changes.values())

    @classmethod
    def create(cls, changes: Changes, base: Mapping[str, Tensor], provenance: dict[str, Any]) -> Patch:
        """A patch that makes ``changes`` to ``base`` (all parameters that change, as they are before)."""
        parameters = {}
        for name, change in changes.items():
            after = tensor_digest(base[name], change.indices, change.new)
            parameters[name] = described(change, tensor_digest(base[name]), after)
        return cls(parameters, changes, with_version(provenance))

    def save(self, path: str | Path) -> None:
        """Write the file, atomically."""
        with PatchWriter(path, self.provenance) as writer:
            for name, change in self.changes.items():
                writer.add(name, change, self.parameters[name])

    @classmethod
    def load(cls, path: str | Path, allow_non_finite: bool = False) -> Patch:
        """Read and check a patch file; what is kept of it in memory is little.

        Args:
            allow_non_finite: take infinite values and NaN as they are.

        Raises:
            LceError: the file is missing, damaged, no patch, of a later version, or contradicts itself.
        """
        patch = cls.open(path, allow_non_finite)
        for _ in patch.changes.values():
            pass  # read and checked
        return patch

    @classmethod
    def open(cls, path: str | Path, allow_non_finite: bool = False) -> Patch:
        """As `load`, but weights and positions are checked only when they are read."""
        metadata, entries = read_header(path)
        record = read_record(metadata, path)
        try:
            parameters = read_parameters(record)
            return cls(parameters, StoredChanges(path, entries, parameters, allow_non_finite), record["provenance"])
        except LceError as error:
            raise LceError(f"{path}: {error}") from error

    def apply(self, model: nn.Module) -> nn.Module:
        """An edited copy of ``model``. Raises LceError, before anything is copied, if it is not the patch's base."""
        self.check_base(model)
        edited = copy.deepcopy(model)
        write_values_(_parameters_of(edited), self.changes, "new")
        return edited

    def apply_(self, model: nn.Module) -> None:
        """As `apply`, in place."""
        self.check_base(model)
        write_values_(_parameters_of(model), self.changes, "new")

    def revert_(self, model: nn.Module) -> None:
        """Take the edit back, in place; LceError and no change if ``model`` is not the base with this patch applied."""
        self.check_revertible()
        parameters = _parameters_of(model)
        self._check(parameters)
        for name, change in self.changes.items():
            tensor = parameters[name].detach()
            restored = tensor_digest(tensor, change.indices, change.old)
            if not same_bits(values_at(tensor, change.indices), change.new) or restored != self.parameters[name].sha256:
                raise LceError(self.not_patched(name, values_at(tensor, change.indices)))
        write_values_(parameters, self.changes, "old")

    def check_base(self, model: nn.Module) -> None:
        """Raises LceError unless the parameters of ``model`` are those that the patch was made for, bit for bit."""
        parameters = _parameters_of(model)
        self._check(parameters)
        for name, change in self.changes.items():
            found = values_at(parameters[name].detach(), change.indices)
            digest = tensor_digest(parameters[name].detach())
            if digest != self.parameters[name].sha256 or not (change.old is None or same_bits(found, change.old)):
                raise LceError(self.not_the_base(name, found))

    def check_revertible(self) -> None:
        """Raises LceError if the old values were left out."""
        if not self.has_old:
            raise LceError("this patch was made without the old values, so it cannot be taken back")

    def check_parameter(self, name: str, found: tuple[tuple[int, ...], torch.dtype] | None) -> None:
        """Raises LceError unless a model's parameter has the patch's shape and dtype; None is one it does not have."""
        wanted = self.parameters[name]
        if found is None:
            raise LceError(f"the model has no parameter {name}; it is not the base of this patch")
        if found != (wanted.shape, wanted.dtype):
            raise LceError(
                f"{name} is {found[1]} {found[0]} in the model, {wanted.dtype} {wanted.shape} in the patch; "
                "it is not the base of this patch"
            )

    def _check(self, parameters: Mapping[str, Tensor]) -> None:
        for name in self.parameters:
            tensor = parameters.get(name)
            self.check_parameter(name, None if tensor is None else (tuple(tensor.shape), tensor.dtype))

    def not_the_base(self, name: str, found: Tensor) -> str:
        """Why a model with the values ``found`` where the patch changes ``name`` is refused."""
        hint = " (the patch is applied already)" if same_bits(found, self.changes[name].new) else ""
        return f"the model's {name} has other values; it is not the base of this patch{hint}"

    def not_patched(self, name: str, found: Tensor) -> str:
        """As `not_the_base`, where the patch was to be taken back."""
        old = self.changes[name].old
        hint = " (the patch is not applied)" if old is not None and same_bits(found, old) else ""
        return f"the model's {name} has other values; it is not the base with this patch applied{hint}"


class PatchWriter:
    """Writes a patch parameter by parameter; leaving the context in peace puts the file in place.

    Args:
        keep_old: with the old values, so that the patch can be reverted.
        keep_full: with the values at α = 1 where there are any, so that the patch can be scaled.
    """

    def __init__(
        self, path: str | Path, provenance: dict[str, Any], keep_old: bool = True, keep_full: bool = True
    ) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.path = Path(path)
        self._writer = TensorWriter(path)
        self._provenance = provenance
        self._parts = ["new"] + ["old"] * keep_old + ["full"] * keep_full

    def add(self, name: str, change: Change, parameter: Parameter) -> None:
        check_name(name)
        for part in self._parts:
            values = getattr(change, part)
            if values is not None:
                self._writer.add(f"{part}/{name}", values)
        self._writer.add(f"steps/{name}", encode(change.indices))
        self.parameters[name] = parameter

    def __enter__(self) -> PatchWriter:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and not self.parameters:
            self._writer.__exit__(LceError, *rest)
            raise LceError("patch: changes nothing")
        self._writer.record = record_of(self.parameters, self._provenance)
        self._writer.__exit__(kind, *rest)


class StoredChanges(Mapping[str, Change]):
    """The changes of a patch file, each read and checked when it is asked for."""

    def __init__(
        self, path: str | Path, entries: dict[str, Entry], parameters: dict[str, Parameter], allow_non_finite: bool
    ) -> None:
        self.path = path
        self.entries, self.parameters, self.allow_non_finite = entries, parameters, allow_non_finite
        self.parts = {name.partition("/")[0] for name in entries} - {"steps"} | {"new"}
        expected = {f"{part}/{name}" for name in parameters for part in {*self.parts, "steps"}}
        different = sorted(expected ^ set(entries)) or sorted(self.parts - {"new", "old", "full"})
        if different:
            raise LceError(f"its tensors are not those of its metadata ({', '.join(map(repr, different[:3]))})")

    def __getitem__(self, name: str) -> Change:
        about = self.parameters[name]
        where = f"{self.path}: {name}"
        for part in self.parts:
            entry = self.entries[f"{part}/{name}"]
            if entry.dtype != about.dtype or entry.shape != (about.count,):
                expected, found = f"{about.dtype} ({about.count},)", f"{entry.dtype} {entry.shape}"
                raise LceError(f"{where}: expected {expected} as {part} values, found {found}")
        indices = decode(self.entries[f"steps/{name}"].read(), about.count, about.size, where)
        values = {part: self.entries[f"{part}/{name}"].read() for part in self.parts}
        if not self.allow_non_finite and not all(bool(torch.isfinite(part).all()) for part in values.values()):
            raise LceError(f"{where}: holds a value that is not finite")
        return Change(indices, values["new"], about.shape, values.get("old"), values.get("full"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)


def values_at(tensor: Tensor, indices: Tensor) -> Tensor:
    """The values of a tensor, on any device, at flat ``indices`` (n,)."""
    return tensor.flatten()[indices.to(tensor.device)].cpu()


def same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(bits(one), bits(other))


def _parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """By canonical name."""
    return {canonical(name): parameter for name, parameter in model.named_parameters()}
