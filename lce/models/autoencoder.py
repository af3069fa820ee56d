"""Sparse autoencoders of a model's states.

A state x becomes z = f((x − b_dec) W_enc + b_enc), of which few values are not zero, and comes back as z W_dec + b_dec.
f is ReLU (standard), the k largest after ReLU (topk), or what exceeds a feature's threshold (jumprelu).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from lce.models.fast_linear import OneDnnLinear
from lce.storage.torch_bridge import fingerprint

ARCHITECTURES = ("standard", "topk", "jumprelu")
NORMALISATIONS = ("none", "constant_norm_rescale", "layer_norm")


@dataclass(frozen=True)
class SparseAutoencoder:
    """A sparse autoencoder for the states at one site.

    Attributes:
        encoder, decoder: W_enc (width, features) and W_dec (features, width).
        encoder_bias, decoder_bias: b_enc (features,) and b_dec (width,).
        architecture: one of `ARCHITECTURES`.
        k: how many features of a state may be active (topk).
        threshold: what a pre-activation has to exceed, (features,) (jumprelu).
        subtracts_bias: whether b_dec is taken off before encoding.
        normalisation: what is done to a state before: one of `NORMALISATIONS`.
        site: where its states come from, as its makers call it.
        metadata: what else its makers say.
        title: what people call it in messages.
    """

    encoder: Tensor
    decoder: Tensor
    encoder_bias: Tensor
    decoder_bias: Tensor
    architecture: str = "standard"
    k: int | None = None
    threshold: Tensor | None = None
    subtracts_bias: bool = True
    normalisation: str = "none"
    site: str = ""
    metadata: Mapping[str, Any] | None = None
    title: str = "autoencoder"

    @property
    def width(self) -> int:
        return self.encoder.shape[0]

    @property
    def size(self) -> int:
        """Number of features."""
        return self.encoder.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by SAELens's names."""
        named = {"W_enc": self.encoder, "W_dec": self.decoder, "b_enc": self.encoder_bias, "b_dec": self.decoder_bias}
        return named | ({} if self.threshold is None else {"threshold": self.threshold})

    def to(self, device: torch.device) -> SparseAutoencoder:
        """The same on another device; itself where it is there already."""
        if self.encoder.device == device:
            return self
        names = ("encoder", "decoder", "encoder_bias", "decoder_bias", "threshold")
        moved = {name: value.to(device) for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **moved)

    def features(self, chosen: Tensor | None = None) -> Features:
        """All features, or those ``chosen`` (n,): what their activations depend on, and what they write.

        Of a topk autoencoder they depend on all features, whose encoder goes along.
        """
        needed = slice(None) if chosen is None or self.architecture == "topk" else chosen
        return Features(
            self.encoder.T[needed].contiguous(),
            self.encoder_bias[needed],
            self.decoder if chosen is None else self.decoder[chosen],
            self.decoder_bias if self.subtracts_bias else torch.zeros_like(self.decoder_bias),
            torch.zeros_like(self.encoder_bias[needed]) if self.threshold is None else self.threshold[needed],
            chosen if self.architecture == "topk" else None,
            self.normalisation,
            self.k if self.architecture == "topk" else None,
        )

    @cached_property
    def _all(self) -> Features:
        return self.features()

    def encode(self, states: Tensor) -> Tensor:
        """Activations z (…, features) of ``states`` (…, width), which may be of any floating-point type."""
        return self._all.activations(states)[0]

    def reconstruct(self, states: Tensor) -> Tensor:
        """z W_dec + b_dec, with the normalisation undone: what ``states`` (…, width) come back as."""
        _, scale, centre = normalised(states.float(), self.normalisation)
        return (self.encode(states) @ self.decoder + self.decoder_bias) * scale + centre


@dataclass(frozen=True)
class Features:
    """Some features of an autoencoder: all that a hook needs to know about them.

    Attributes:
        encoder: the rows of W_encᵀ that their activations depend on, (m, width).
        encoder_bias, threshold: (m,).
        decoder: their rows of W_dec, (n, width).
        centre: what is taken off a state before encoding, (width,).
        chosen: where they are among the m, (n,); None if they are all of them.
        normalisation: one of `NORMALISATIONS`.
        k: how many of the m may be active (topk).
    """

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    centre: Tensor
    threshold: Tensor
    chosen: Tensor | None = None
    normalisation: str = "none"
    k: int | None = None

    def activations(self, states: Tensor) -> tuple[Tensor, Tensor | float]:
        """Activations (…, n) of ``states`` (…, width), and what the features' output is multiplied by, (…, 1)."""
        inputs, scale, _ = normalised(states.float(), self.normalisation)
        with OneDnnLinear():
            active = linear(inputs - self.centre, self.encoder, self.encoder_bias)
        if self._has_thresholds:
            active.masked_fill_(active <= self.threshold, 0)
        if self.k is None:
            active.relu_()
        else:
            largest = active.topk(self.k, sorted=False)
            active = torch.zeros_like(active).scatter_(-1, largest.indices, largest.values.relu())
        return active if self.chosen is None else active[..., self.chosen], scale

    @cached_property
    def _has_thresholds(self) -> bool:
        """Whether ReLU alone is not all that decides."""
        return bool(self.threshold.any())

    def written(self, states: Tensor, factor: float) -> Tensor:
        """factor · Σ_f z_f W_dec[f] for ``states`` (…, width), float32: a multiple of what the features write."""
        active, scale = self.activations(states)
        return ((factor * active) @ self.decoder) * scale

    def to(self, device: torch.device) -> Features:
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        names = ("encoder", "encoder_bias", "decoder", "centre", "threshold", "chosen")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def normalised(states: Tensor, how: str) -> tuple[Tensor, Tensor | float, Tensor | float]:
    """What is encoded of ``states`` (…, width), and the scale and the centre by which the output goes back.

    constant_norm_rescale gives every state the length √width, layer_norm mean 0 and standard deviation 1.
    """
    if how == "constant_norm_rescale":
        scale = states.norm(dim=-1, keepdim=True) / sqrt(states.shape[-1])
        return states / scale, scale, 0.0
    if how == "layer_norm":
        centre = states.mean(-1, keepdim=True)
        spread = (states - centre).std(-1, keepdim=True)
        return (states - centre) / (spread + 1e-5), spread, centre
    return states, 1.0, 0.0
