"""Edits of states at a site, by hooks: features of an autoencoder scaled, a direction taken out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from lce.config import Positions
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator
from lce.localize.directions import Direction
from lce.localize.feature_units import FeatureUnits, Reading
from lce.localize.features import about, random_features
from lce.localize.selection import Selection
from lce.models.identity import model_fingerprint
from lce.models.shifts import DirectionShift, FeatureShift, Shift, change_of
from lce.models.sites import Site, changed_at
from lce.patch.hooks import HookPatch, write_hook_patch


@dataclass(frozen=True)
class SiteEdit:
    """Adds something to the states at one site; the first token of each text keeps its state.

    Attributes:
        positions: all; the prompt's alone, so that what is generated with a cache is left; or visual, of pictures.
        may_be_void: whether it is allowed to change nothing.
    """

    positions: Positions = field(default="all", kw_only=True)
    may_be_void: bool = field(default=False, kw_only=True)

    @property
    @abstractmethod
    def model(self) -> str:
        """Fingerprint of the model that it is for."""

    @property
    @abstractmethod
    def site(self) -> Site:
        """Where."""

    @property
    @abstractmethod
    def shift(self) -> Shift:
        """What is added."""

    @property
    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What a patch says of how the edit was made."""

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block, ``model`` is edited by a hook; after it, the hook is gone, and no weight was touched.

        Raises:
            LceError: ``model`` is another one, or the edit would change nothing.
        """
        if self.shift.is_nothing and not self.may_be_void:
            numbers = ", ".join(f"{name} {value}" for name, value in self.shift.numbers().items())
            raise LceError(f"the edit ({numbers}) would change nothing")
        if model_fingerprint(model) != self.model:
            raise LceError("the model has other weights than the one that this edit was made for")
        with changed_at(model, self.site, change_of(self.shift, self.positions)):
            yield

    def patch(self, path: str | Path, provenance: Mapping[str, Any] | None = None) -> HookPatch:
        """Write to ``path`` the patch that makes this edit.

        Args:
            provenance: what the patch is to say of where it comes from, beside how the edit was made.

        Raises:
            LceError: nothing would change, or ``path`` cannot be written; nothing is left there then.
        """
        said = {**(provenance or {}), **self.provenance}
        return write_hook_patch(path, self.site, self.shift, self.positions, self.model, said)


@dataclass(frozen=True)
class FeatureEdit(SiteEdit):
    """The ``selection`` of features times ``scale`` s: h ← h + Σ_f (s − 1) z_f W_dec[f].

    Attributes:
        activations: of all features, by occupation: random baselines are drawn by them.

    Raises:
        LceError: the selection was made for another model or autoencoder.
    """

    units: FeatureUnits
    selection: Selection
    activations: Reading
    scale: float

    def __post_init__(self) -> None:
        if self.selection.target != self.units.fingerprint:
            raise LceError("the selection was made for another model, site or autoencoder")

    @property
    def model(self) -> str:
        return self.units.model

    @property
    def site(self) -> Site:
        return self.units.site

    @property
    def shift(self) -> Shift:
        chosen = self.selection.indices[self.units.name]
        return FeatureShift(self.units.autoencoder.features(chosen), self.scale)

    @property
    def provenance(self) -> dict[str, Any]:
        return {
            "localization": self.selection.localization,
            "strategy": "feature scaling",
            "scale": self.scale,
            "autoencoder": self.units.autoencoder.title.removeprefix("autoencoder "),
            "autoencoder_fingerprint": self.units.autoencoder.fingerprint,
            "features": [row["feature"] for row in about(self.selection)],
        }

    def random_baseline(self, seed: int, is_matched: bool = False) -> FeatureEdit:
        """The same edit of as many features by chance: see `lce.localize.features.random_features`."""
        drawn = random_features(self.selection, self.activations, seed, is_matched)
        return replace(self, selection=drawn, may_be_void=True)


@dataclass(frozen=True)
class DirectionEdit(SiteEdit):
    """A ``direction`` d brought to its ``centre`` m with strength ``alpha`` α: h ← h − α (h · d − m) d.

    With m = 0, by default, it is taken out.
    """

    direction: Direction
    alpha: float
    centre: float = 0.0

    @property
    def model(self) -> str:
        return self.direction.model

    @property
    def site(self) -> Site:
        return self.direction.site

    @property
    def shift(self) -> Shift:
        return DirectionShift(self.direction.vector, self.alpha, self.centre)

    @property
    def provenance(self) -> dict[str, Any]:
        strategy = "direction at its mean" if self.centre else "direction removal"
        return {"localization": self.direction.name, "strategy": strategy, **self.shift.numbers()}

    def random_baseline(self, seed: int, is_matched: bool = False) -> DirectionEdit:
        """The same edit with a random direction; of those, there are no matched ones."""
        noise = torch.randn(len(self.direction.vector), generator=generator(seed, "random direction"))
        name = f"uninformed-{self.direction.name}"
        drawn = replace(self.direction, vector=normalize(noise, dim=0), name=name)
        return replace(self, direction=drawn, may_be_void=True)
