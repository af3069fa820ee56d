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

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lce.foundations.errors import LceError
from lce.patch.check import State, verify
from lce.patch.readers import opened
from lce.patch.record import Parameter, base_fingerprint, read_parameters
from lce.patch.stored_changes import StoredChanges
from lce.storage.safetensors_file import digests_of, read_header, read_record

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Patch:
    """A patch file: changed weights by parameter, what identifies each whole parameter, and the edit's provenance.

    Each of the ``changes`` is read from the file when it is asked for.
    """

    changes: StoredChanges
    provenance: dict[str, Any]

    @property
    def file(self) -> Path:
        return self.changes.path

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """What the patch says of each parameter that it changes."""
        return self.changes.parameters

    @property
    def base_fingerprint(self) -> str:
        """SHA-256 over the digests of all parameters that the patch touches."""
        return base_fingerprint(self.parameters)

    @property
    def count(self) -> int:
        """Number of weights."""
        return sum(parameter.count for parameter in self.parameters.values())

    @property
    def moved(self) -> dict[str, int]:
        """Of each parameter, how many weights change at this α; all of the patch's where it has no old values."""
        return {name: len(change.moved) for name, change in self.changes.items()}

    @property
    def has_old(self) -> bool:
        """Whether the patch can be reverted."""
        return "old" in self.changes.parts

    @property
    def has_full(self) -> bool:
        """Whether the patch has values at α = 1: of an edit that is linear in α, unless they were left out."""
        return "full" in self.changes.parts

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
            changes = StoredChanges(path, entries, parameters, digests_of(record, path), allow_non_finite)
        except LceError as error:
            raise LceError(f"{path}: {error}") from error
        return cls(changes, record["provenance"])

    def apply(self, model: nn.Module) -> nn.Module:
        """An edited copy of ``model``.

        Raises:
            LceError: ``model`` is not the patch's base, or would not become what the patch says.
        """
        edited = copy.deepcopy(model)
        self.apply_(edited)
        return edited

    def apply_(self, model: nn.Module) -> None:
        """As `apply`, in place; ``model`` stays as it is if anything is refused."""
        from lce.patch.on_modules import put_in_

        put_in_(self.changes, model, "new")

    def revert_(self, model: nn.Module) -> None:
        """Take the edit back, in place; LceError and no change if ``model`` is not the base with this patch applied."""
        from lce.patch.on_modules import put_in_

        put_in_(self.changes, model, "old")

    def verify(self, model: str | Path | nn.Module) -> State:
        """Whether ``model`` is the patch's "base", or that base "patched"; a folder, a name on the hub, or a module.

        Raises:
            LceError: it is neither, or the patch does not hold enough to tell.
        """
        return verify(self.changes, opened(model))
