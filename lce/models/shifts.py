"""What an edit adds to a model's states at a site: features scaled, or a direction taken out.

Features: h ← h + Σ_f (s − 1) z_f(h) W_dec[f]. What the autoencoder does not explain stays in the state, so that s = 1
is the unedited model exactly. Direction: h ← h − α (h · d − m) d, with |d| = 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from lce.config import Positions
from lce.foundations.errors import LceError
from lce.models.autoencoder import Features
from lce.models.places import Place
from lce.models.sites import Change


class Shift(Protocol):
    """What is added to a state."""

    kind: str
    """The unit that it concerns: feature, direction."""

    @property
    def width(self) -> int:
        """Of the states."""

    def of(self, states: Tensor) -> Tensor:
        """What is added to ``states`` (…, width): the same shape, float32."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is added, whatever the state."""

    def tensors(self) -> dict[str, Tensor]:
        """All that it is made of, by name; with `numbers`, what a patch keeps."""

    def numbers(self) -> dict[str, Any]:
        """Likewise, what is no tensor."""


@dataclass(frozen=True)
class FeatureShift:
    """Features times a factor ``scale`` s: 1 leaves them, 0 takes them out, and negative ones reverse them."""

    features: Features
    scale: float
    kind = "feature"

    @property
    def width(self) -> int:
        return self.features.encoder.shape[1]

    def of(self, states: Tensor) -> Tensor:
        return self.features.written(states, self.scale - 1)

    def to(self, device: torch.device) -> FeatureShift:
        return replace(self, features=self.features.to(device))

    @property
    def is_nothing(self) -> bool:
        return self.scale == 1 or not len(self.features.decoder)

    def tensors(self) -> dict[str, Tensor]:
        return self.features.tensors()

    def numbers(self) -> dict[str, Any]:
        return {"scale": self.scale, "normalisation": self.features.normalisation, "k": self.features.k}


@dataclass(frozen=True)
class DirectionShift:
    """A ``direction`` d (width,) of length 1, brought to its ``centre`` m with strength ``alpha`` α: 0 takes it out."""

    direction: Tensor
    alpha: float
    centre: float = 0.0
    kind = "direction"

    @property
    def width(self) -> int:
        return len(self.direction)

    def of(self, states: Tensor) -> Tensor:
        along = states.float() @ self.direction - self.centre
        return along.unsqueeze(-1) * (-self.alpha * self.direction)

    def to(self, device: torch.device) -> DirectionShift:
        return replace(self, direction=self.direction.to(device))

    @property
    def is_nothing(self) -> bool:
        return self.alpha == 0

    def tensors(self) -> dict[str, Tensor]:
        return {"direction": self.direction}

    def numbers(self) -> dict[str, Any]:
        return {"alpha": self.alpha} | ({"centre": self.centre} if self.centre else {})


def read_shift(kind: str, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Shift:
    """The shift that these tensors and numbers make up; KeyError, TypeError or ValueError if they make up none."""
    if kind == "feature":
        k = numbers["k"]
        features = Features(
            **{name: tensors[name] for name in ("encoder", "encoder_bias", "decoder", "centre", "threshold")},
            chosen=tensors.get("chosen"),
            normalisation=str(numbers["normalisation"]),
            k=None if k is None else int(k),
        )
        return FeatureShift(features, float(numbers["scale"]))
    if kind == "direction":
        return DirectionShift(tensors["direction"], float(numbers["alpha"]), float(numbers.get("centre", 0)))
    raise ValueError(f"{kind!r} is no kind of shift")


def change_of(shift: Shift, positions: Positions = "all") -> Change:
    """What adds ``shift`` to states; the first token of a text keeps its own."""
    placed = {torch.device("cpu"): shift}

    def change(states: Tensor, place: Place) -> Tensor:
        if shift.is_nothing or (positions == "prompt" and not place.is_prompt):
            return states
        if states.device not in placed:
            placed[states.device] = shift.to(states.device)
        here = placed[states.device]
        left = place.first_of(states)
        if positions == "visual":
            if place.is_visual is None or place.is_visual.shape != left.shape:
                raise LceError("the edit is one of the tokens of pictures, and the model is not told which those are")
            left = left | ~place.is_visual
        added = here.of(states).masked_fill(left.unsqueeze(-1), 0)
        return states + added.to(states.dtype)

    return change
