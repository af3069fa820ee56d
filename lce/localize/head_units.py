"""The attention heads of CLIP's image encoder as units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

from lce.localize.selection import Selection
from lce.models.clip import Clip
from lce.models.identity import model_fingerprint
from lce.models.image_tower import ImageTower
from lce.storage.arrays import combined

Head = tuple[int, int]
"""Layer and head, both counted from 0."""


@dataclass(frozen=True)
class HeadUnits:
    """All attention heads of an image encoder.

    Attributes:
        model: the model's fingerprint.
    """

    model: str
    tower: ImageTower
    kind = "head"

    @classmethod
    def of(cls, clip: Clip) -> HeadUnits:
        return cls(model_fingerprint(clip.model), clip.tower)

    def site(self, layer: int) -> str:
        """The heads of a layer, as selections name them."""
        return f"{self.tower.prefix}.encoder.layers.{layer}.heads"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {self.site(layer): (self.tower.heads,) for layer in range(len(self.tower.layers))}

    @cached_property
    def fingerprint(self) -> str:
        return combined({"model": self.model, "heads": str(self.tower.heads)})

    def positions(self, heads: Iterable[Head]) -> dict[str, torch.Tensor]:
        """These ``heads`` by site."""
        chosen = sorted(set(heads))
        return {
            self.site(layer): torch.tensor([head for at, head in chosen if at == layer], dtype=torch.int64)
            for layer in range(len(self.tower.layers))
        }

    def by_layer(self, selection: Selection) -> dict[int, list[int]]:
        """The heads that are selected, by layer; layers without any are left out."""
        layers = range(len(self.tower.layers))
        found = {layer: selection.indices[self.site(layer)].tolist() for layer in layers}
        return {layer: heads for layer, heads in found.items() if heads}

    def heads_of(self, selection: Selection) -> list[Head]:
        """The heads that are selected, in order."""
        return [(layer, head) for layer, heads in self.by_layer(selection).items() for head in heads]
