"""The patch file, version 1: an ordinary safetensors file with, per parameter, where, what, and what was there before.

For each changed parameter NAME, by its name in the Hugging Face checkpoint, the file holds vectors with one entry per
weight, in the parameter's dtype, bit for bit:
    new/NAME    the values the edit puts there
    old/NAME    the values it found there, so that the edit can be taken back (may be left out, in all parameters)
    full/NAME   of an edit that is linear in α, the values at α = 1, so that α can be changed later (may be left out)
and the weights' flat positions:
    steps/NAME  how many weights lie between one position and the next, as `lce.storage.position_codec` describes

The metadata has two keys: "lce" with JSON, and "lce_sha256", the SHA-256 of that text. The JSON has
    format, version     "lce-patch", 1
    parameters          by NAME: shape, dtype (F32, F16, BF16 or F64), count; sha256 of the whole parameter before the
                        edit (the base), and sha256_after, of the parameter after it (null where nobody knew the base);
                        sha256_old, of the old values, which identifies the base even where they are left out
    base_fingerprint    SHA-256 over the lines "NAME sha256" of all parameters, sorted
    provenance          free: target, reference, localization, strategy, alpha, scores, library_version, …
    digests             SHA-256 of each tensor of the file, by its name there
A tensor's SHA-256 is that of the line "DTYPE SHAPE", such as F32 (768, 768), and its bytes. Files of older versions
have neither digests nor lce_sha256 nor sha256_old; they load, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lce.foundations.errors import LceError
from lce.patch.record import (
    Parameter,
    RawChange,
    base_fingerprint,
    is_finite,
    read_parameters,
    with_version,
)
from lce.patch.writer import PatchWriter
from lce.storage.arrays import Array, bits
from lce.storage.position_codec import decode
from lce.storage.safetensors_file import Entry, digests_of, read_checked, read_header, read_record

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lce.storage.changes import Changes


@dataclass(frozen=True)
class Patch:
    """Changed weights by parameter, what identifies each whole parameter, and the edit's provenance.

    ``changes`` of a loaded patch are read from the file parameter by parameter, each time they are asked for.
    """

    parameters: dict[str, Parameter]
    changes: Mapping[str, RawChange]
    provenance: dict[str, Any]

    @property
    def file(self) -> Path | None:
        """Where its changes are read from; None if they are in memory."""
        return Path(self.changes.path) if isinstance(self.changes, StoredChanges) else None

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
        from lce.patch.on_modules import created

        parameters, stored = created(changes, base)
        return cls(parameters, stored, with_version(provenance))

    def save(self, path: str | Path) -> None:
        """Write the file, atomically."""
        with PatchWriter.to(path, self.provenance) as writer:
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
            digests = digests_of(record, path)
            changes = StoredChanges(path, entries, parameters, digests, allow_non_finite)
            return cls(parameters, changes, record["provenance"])
        except LceError as error:
            raise LceError(f"{path}: {error}") from error

    def apply(self, model: nn.Module) -> nn.Module:
        """An edited copy of ``model``.

        Raises:
            LceError: ``model`` is not the patch's base, or would not become what the patch says.
        """
        from lce.patch.on_modules import apply

        return apply(self, model)

    def apply_(self, model: nn.Module) -> None:
        """As `apply`, in place; ``model`` stays as it is if anything is refused."""
        from lce.patch.on_modules import apply_

        apply_(self, model)

    def revert_(self, model: nn.Module) -> None:
        """Take the edit back, in place; LceError and no change if ``model`` is not the base with this patch applied."""
        from lce.patch.on_modules import revert_

        revert_(self, model)

    def check_revertible(self) -> None:
        """Raises LceError if the old values were left out."""
        if not self.has_old:
            raise LceError("this patch was made without the old values, so it cannot be taken back")

    def check_parameter(self, name: str, found: tuple[tuple[int, ...], str] | None) -> None:
        """Raises LceError unless a model's parameter has the patch's shape and dtype; None is one it does not have."""
        wanted = self.parameters[name]
        if found is None:
            raise LceError(f"the model has no parameter {name}; it is not the base of this patch")
        if found != (wanted.shape, wanted.dtype):
            raise LceError(
                f"{name} is {found[1]} {found[0]} in the model, {wanted.dtype} {wanted.shape} in the patch; "
                "it is not the base of this patch"
            )


class StoredChanges(Mapping[str, RawChange]):
    """The changes of a patch file, each read and checked when it is asked for."""

    def __init__(
        self,
        path: str | Path,
        entries: dict[str, Entry],
        parameters: dict[str, Parameter],
        digests: dict[str, str],
        allow_non_finite: bool,
    ) -> None:
        self.path, self.digests = path, digests
        self.entries, self.parameters, self.allow_non_finite = entries, parameters, allow_non_finite
        self.parts = {name.partition("/")[0] for name in entries} - {"steps"} | {"new"}
        expected = {f"{part}/{name}" for name in parameters for part in {*self.parts, "steps"}}
        different = sorted(expected ^ set(entries)) or sorted(self.parts - {"new", "old", "full"})
        if different:
            raise LceError(f"its tensors are not those of its metadata ({', '.join(map(repr, different[:3]))})")

    def __getitem__(self, name: str) -> RawChange:
        about = self.parameters[name]
        where = f"{self.path}: {name}"
        for part in self.parts:
            entry = self.entries[f"{part}/{name}"]
            if entry.code != about.dtype or entry.shape != (about.count,):
                expected, found = f"{about.dtype} ({about.count},)", f"{entry.code} {entry.shape}"
                raise LceError(f"{where}: expected {expected} as {part} values, found {found}")
        steps = read_checked(self.entries[f"steps/{name}"], self.digests)
        indices = decode(steps, about.count, about.size, where)
        values = {part: read_checked(self.entries[f"{part}/{name}"], self.digests) for part in self.parts}
        if not self.allow_non_finite and not all(is_finite(part, about.dtype) for part in values.values()):
            raise LceError(f"{where}: holds a value that is not finite")
        return RawChange(indices, values["new"], values.get("old"), values.get("full"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)


def same_bits(one: Array, other: Array | None) -> bool:
    """Whether two vectors are the same, zeros' signs and NaN included; nothing is the same as None."""
    return other is not None and np.array_equal(bits(one), bits(other))
