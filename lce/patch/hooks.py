"""The hook patch: what a model's states get added at one site, for edits that cannot be written as weights.

A safetensors file with the few vectors that the edit needs: of features, their rows of encoder and decoder, biases and
thresholds; or a direction. The metadata has the keys "lce", JSON, and "lce_sha256", as all files of lce. The JSON has
    format, version     "lce-hook-patch", 1
    kind                feature or direction
    site                the module whose output (with ":input": input) is changed, by its path in the base model
    positions           all, prompt, or visual: the tokens of pictures
    base_fingerprint    SHA-256 over the base model's parameters in float32
    numbers             scale and normalisation of features; alpha, and centre unless it is 0, of a direction
    provenance          free: model, autoencoder, rule, features, scores, library_version, …
    digests             SHA-256 of each tensor of the file, by its name there
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lce.config import Positions
from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_replaceable
from lce.models.autoencoder import NORMALISATIONS
from lce.models.identity import model_fingerprint
from lce.models.shifts import FeatureShift, Shift, change_of, read_shift
from lce.models.sites import Site, changed_at, hook_in, width_at
from lce.patch.record import HOOK_FORMAT, MOST_NESTED, is_shallow
from lce.storage.torch_bridge import read_file, write_file

FORMAT_VERSION = 1
SITE = re.compile(r"[\w-]+(\.[\w-]+)*(:input)?")
SHA_256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class HookPatch:
    """What is added at a ``site`` of the model with the fingerprint ``base``, and where that comes from."""

    file: Path
    site: Site
    shift: Shift
    positions: Positions
    base: str
    provenance: dict[str, Any]

    @property
    def count(self) -> int:
        """Number of features, or 1 direction."""
        return len(self.shift.tensors()["decoder"]) if self.shift.kind == "feature" else 1

    @classmethod
    def load(cls, path: str | Path) -> HookPatch:
        """Read and check a patch file.

        Raises:
            LceError: the file is missing, damaged, no hook patch, of a later version, or contradicts itself.
        """
        record, tensors = read_file(path)
        if record.get("format") != HOOK_FORMAT:
            raise LceError(f"{path}: is no hook patch of lce")
        if record.get("version") != FORMAT_VERSION:
            found = repr(record.get("version"))[:20]
            raise LceError(f"{path}: has format version {found}; this lce reads version {FORMAT_VERSION}")
        texts = [record.get(key) for key in ("site", "base_fingerprint", "positions", "kind")]
        are_texts = all(isinstance(text, str) for text in texts) and texts[2] in get_args(Positions)
        if not are_texts or not SITE.fullmatch(str(texts[0])) or not SHA_256.fullmatch(str(texts[1])):
            raise LceError(f"{path}: does not say for which model and site it is")
        provenance = record.get("provenance")
        if not isinstance(provenance, dict) or not is_shallow(provenance, MOST_NESTED):
            raise LceError(f"{path}: its provenance is no mapping, or nested more than {MOST_NESTED} deep")
        types = {name: torch.int64 if name == "chosen" else torch.float32 for name in tensors}
        if not all(tensor.dtype == types[name] and bool(tensor.isfinite().all()) for name, tensor in tensors.items()):
            raise LceError(f"{path}: holds values that are not finite numbers in float32")
        try:
            shift = read_shift(str(texts[3]), tensors, record["numbers"])
            _check_parts(shift, tensors, record["numbers"])
        except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
            reason = f"{'lacks ' * isinstance(error, KeyError)}{error}"[:80]
            raise LceError(f"{path}: its tensors do not make up what it says it is ({reason})") from error
        return cls(Path(path), Site(str(texts[0])), shift, texts[2], str(texts[1]), provenance)  # type: ignore[arg-type]

    def check(self, model: nn.Module) -> None:
        """Raises LceError if ``model`` is not the patch's base, or has other states at the site."""
        self.site.module(model)
        if model_fingerprint(model) != self.base:
            name = getattr(model, "name_or_path", "") or type(model).__name__
            raise LceError(f"{name}: its weights are not those of the model that {self.file.name} was made for")
        width = width_at(model, self.site)  # type: ignore[arg-type]
        if width != self.shift.width:
            wanted = f"{self.file.name}: is for states of width {self.shift.width}"
            raise LceError(f"{wanted}, but those at {self.site.name} are {width} wide")

    def applied(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the block, the patch is applied to ``model``; LceError if it is not the patch's base."""
        self.check(model)
        return changed_at(model, self.site, change_of(self.shift, self.positions))

    def apply_(self, model: nn.Module) -> Callable[[], None]:
        """Apply the patch to ``model``; calling what is returned takes it back. Copies of the model have it, too.

        Raises:
            LceError: ``model`` is not the patch's base.
        """
        self.check(model)
        return hook_in(model, self.site, change_of(self.shift, self.positions))


def _check_parts(shift: Shift, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Raises ValueError where tensors and numbers of a file are others than those of ``shift``, or do not fit."""
    found = shift.numbers()
    if found != numbers or any(isinstance(number, bool) for number in numbers.values()):
        raise ValueError("its numbers are others than such an edit has")
    if not all(isfinite(number) for number in found.values() if isinstance(number, float)):
        raise ValueError("its numbers are not finite")
    if isinstance(shift, FeatureShift):
        all_features, count = len(shift.features.encoder), len(shift.features.decoder)
        width, k, chosen = shift.features.encoder[0].numel(), shift.features.k, shift.features.chosen
        shapes: dict[str, tuple[int, ...]] = {
            "encoder": (all_features, width), "encoder_bias": (all_features,), "threshold": (all_features,),
            "decoder": (all_features if chosen is None else count, width), "centre": (width,),
        } | ({} if chosen is None else {"chosen": (count,)})  # fmt: skip
        if chosen is not None and not bool(((chosen >= 0) & (chosen < all_features)).all()):
            raise ValueError(f"chosen: expected some of {all_features} features")
        if k is not None and not 1 <= k <= all_features:
            raise ValueError(f"k: expected 1 to {all_features} features")
        if found["normalisation"] not in NORMALISATIONS:
            raise ValueError(f"normalisation: expected {', '.join(NORMALISATIONS)}")
    else:
        shapes = {"direction": (shift.width,)}
        if not 0.999 < float(tensors["direction"].norm()) < 1.001:
            raise ValueError("direction: is not of length 1")
    for name in sorted({*shapes, *tensors}):
        if name not in shapes or tuple(tensors[name].shape) != shapes[name]:
            raise ValueError(f"{name}: is of another shape than such an edit has, or none of its tensors")


def write_hook_patch(
    path: str | Path, site: Site, shift: Shift, positions: Positions, base: str, provenance: Mapping[str, Any]
) -> HookPatch:
    """Write a patch to ``path``.

    Args:
        base: fingerprint of the model that it is for.

    Raises:
        LceError: nothing would change, or ``path`` cannot be written.
    """
    check_replaceable(path, "patch")
    if shift.is_nothing:
        raise LceError(f"the edit ({', '.join(f'{k} {v}' for k, v in shift.numbers().items())}) would change nothing")
    record = {
        "format": HOOK_FORMAT,
        "version": FORMAT_VERSION,
        "kind": shift.kind,
        "site": site.name,
        "positions": positions,
        "base_fingerprint": base,
        "numbers": shift.numbers(),
        "provenance": {**provenance, "library_version": version("lce")},
    }
    write_file(Path(path), {name: tensor.cpu() for name, tensor in shift.tensors().items()}, record)
    return HookPatch.load(path)
