"""The directions of a vision-language model as units: in each layer one, at the tokens of pictures or at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lce.config import Positions
from lce.localize.lals import TextReference
from lce.localize.selection import Selection
from lce.models.identity import model_fingerprint
from lce.models.image_text import ImageText
from lce.models.sites import Site
from lce.storage.arrays import combined
from lce.storage.torch_bridge import tensor_digest

RULE = "lals"


@dataclass(frozen=True)
class DirectionUnits:
    """One direction in each layer, from the mean of the second group's texts to that of the first one's.

    Attributes:
        model: the model's fingerprint.
        sites: what each layer puts out.
        reference: the states of the texts.
        positions: at which tokens: visual, or all.
    """

    model: str
    sites: tuple[Site, ...]
    reference: TextReference
    positions: Positions = "visual"
    kind = "direction"

    @classmethod
    def of(cls, model: ImageText, reference: TextReference, positions: Positions = "visual") -> DirectionUnits:
        sites = tuple(model.site(layer) for layer in range(len(model.layers)))
        return cls(model_fingerprint(model.model), sites, reference, positions)

    def name(self, layer: int) -> str:
        """The direction of a layer, as selections name it."""
        return f"{self.sites[layer].name}.{self.positions}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {self.name(layer): (1,) for layer in range(len(self.sites))}

    @cached_property
    def fingerprint(self) -> str:
        texts = {"states": tensor_digest(self.reference.states), "labels": tensor_digest(self.reference.labels)}
        return combined({"model": self.model, **texts})

    def selection(self, layers: Iterable[int], about: Mapping[int, dict[str, Any]] | None = None) -> Selection:
        """The selection of the directions of these ``layers``, with what is to be said ``about`` each."""
        chosen = set(layers)
        indices = {self.name(layer): torch.arange(int(layer in chosen)) for layer in range(len(self.sites))}
        details = {self.name(layer): [row] for layer, row in (about or {}).items() if layer in chosen}
        return Selection(indices, self.shapes, RULE, self.fingerprint, self.fingerprint, self.kind, details)
