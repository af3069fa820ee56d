"""Writing a patch, parameter by parameter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_replaceable
from lce.patch.record import (
    Parameter,
    RawChange,
    check_name,
    record_of,
)
from lce.storage.digests import whole_digest
from lce.storage.position_codec import encode
from lce.storage.safetensors_file import (
    TensorWriter,
)

if TYPE_CHECKING:
    pass


class PatchWriter:
    """Writes a patch parameter by parameter."""

    def __init__(self, tensors: TensorWriter, parts: list[str]) -> None:
        self.parameters: dict[str, Parameter] = {}
        self._tensors, self._parts = tensors, parts

    @classmethod
    @contextmanager
    def to(
        cls, path: str | Path, provenance: dict[str, Any], keep_old: bool = True, keep_full: bool = True
    ) -> Iterator[PatchWriter]:
        """A writer whose patch is at ``path`` once the block has succeeded.

        Args:
            keep_old: with the old values, so that the patch can be reverted.
            keep_full: with the values at α = 1 where there are any, so that the patch can be scaled.

        Raises:
            LceError: nothing was added, the disk is full, or ``path`` is a file that is no patch.
        """
        check_replaceable(path, "patch")
        with TensorWriter.to(path) as tensors:
            writer = cls(tensors, ["new"] + ["old"] * keep_old + ["full"] * keep_full)
            yield writer
            if not writer.parameters:
                raise LceError("patch: changes nothing")
            tensors.record = record_of(writer.parameters, provenance)

    def add(self, name: str, change: RawChange, parameter: Parameter) -> None:
        check_name(name)
        for part in self._parts:
            values = getattr(change, part)
            if values is not None:
                self._tensors.add(f"{part}/{name}", values, parameter.dtype)
        self._tensors.add(f"steps/{name}", *encode(change.indices))
        if change.old is not None:
            parameter = replace(parameter, sha256_old=whole_digest(change.old, parameter.dtype, change.old.shape))
        self.parameters[name] = parameter
