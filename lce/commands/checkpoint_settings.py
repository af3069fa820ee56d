"""Everything that `lce localize` and `lce edit` can be told about two checkpoints, with defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class LocalizeSettings:
    """Which weights of two checkpoints differ."""

    localization: Literal["mask", "value"] = "value"
    """value: the k weights that differ most; mask: weights kept in exactly one of the two models' masks."""
    k: int | float = 0.1
    """Size of a value-based selection: a share in (0, 1], or a whole number of weights."""
    sparsity: float = 0.3
    """Share of weights that the masks prune, the smallest of each model in one shot. It is a stand-in where iterative
    magnitude pruning was not run; subnetworks that `lce train` made bring their own masks."""
    tensors: list[str] | None = None
    """Regular expressions: a tensor takes part if its name matches one anywhere. By default the weight matrices of all
    encoder and decoder layers, without embeddings, normalisation, biases and head; experts stacked in three dimensions
    have to be named. Given, the masks of subnetworks, which cover the default only, are left aside."""
    skip_unmatched: bool = False
    """Leave out tensors that only one of the two checkpoints has, instead of refusing them."""


@dataclass
class EditSettings(LocalizeSettings):
    """How the target is edited where it differs from the reference."""

    selection: str | None = None
    """Selection file, as `lce localize TARGET REFERENCE` writes it, to use instead of localising anew."""
    strategy: Literal["interpolation", "extrapolation", "pruning", "mask-switch"] = "extrapolation"
    """Edit. Interpolation and extrapolation are one formula, θ_t + α (θ_r − θ_t)."""
    alpha: float = 2.0
    """Strength of the edit, any real number but 0; 1 puts the reference's values in."""
    patch: str | None = None
    """Patch file to write."""
    output: str | None = None
    """Folder to write the edited model to."""
    old_values: bool = True
    """Keep the old values in the patch, so that it can be reverted."""
    full_step: bool = True
    """Keep the values at α = 1 in the patch, so that it can be scaled to another α without the reference."""
