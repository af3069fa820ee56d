"""The image embedding of CLIP as a sum of terms: what each attention head, each MLP and the embedding layer wrote.

After Gandelsman, Efros and Steinhardt (2024), section 3. With c the class token's last state, w and b the weights of
the final normalisation, P the projection and σ the standard deviation of c over its d entries, the embedding is
    e = P (w ⊙ (c − mean(c)) / σ + b) / ‖·‖.
c is a sum: of what head h of layer l adds, W_O[:, h] z, of each layer's bias b_O, of what each MLP adds, and of the
state before the first layer. Once σ and the norm of a picture are known, all of e is linear in c, so each term of c
gives a term of e; b_O and b are terms of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lce.models.image_states import ImageStates
from lce.models.image_tower import ImageTower


class Terms(NamedTuple):
    """The terms of n embeddings of width D; all of them sum to the embedding.

    Attributes:
        heads: (n, L, H, D).
        biases: of each layer's attention, (n, L, D).
        mlps: (n, L, D).
        embedding: of the state before the first layer, (n, D).
        norm: of the bias of the final normalisation, (n, D).
    """

    heads: Tensor
    biases: Tensor
    mlps: Tensor
    embedding: Tensor
    norm: Tensor

    def total(self) -> Tensor:
        """The embeddings, (n, D)."""
        return self.heads.sum((1, 2)) + self.biases.sum(1) + self.mlps.sum(1) + self.embedding + self.norm


class Reading:
    """How an image encoder's terms are read off: the map from what is added to the class token to the embedding.

    Attributes:
        map: P · diag(w) · (I − 11ᵀ/d), (D, d).
        heads: by layer, what a head's z is multiplied by, (L, H, D, d/H).
    """

    def __init__(self, tower: ImageTower) -> None:
        norm = tower.vision.post_layernorm
        weighted: Tensor = tower.projection.weight * norm.weight
        self.tower = tower
        self.map = weighted - weighted.mean(1, keepdim=True)
        outputs = [tower.output(number).weight for number in range(len(tower.layers))]
        shape = (tower.heads, tower.head_width)
        self.heads = torch.stack([(self.map @ weight).unflatten(1, shape).movedim(1, 0) for weight in outputs])

    def scales(self, states: ImageStates) -> Tensor:
        """1 / (σ ‖e‖) of each picture, (n): what the ``map`` of a term is multiplied by."""
        return self._spreads(states)[1]

    def _spreads(self, states: ImageStates) -> tuple[Tensor, Tensor]:
        """1 / ‖e‖, and 1 / (σ ‖e‖), each (n)."""
        norm = self.tower.vision.post_layernorm
        lengths = self.tower.projection(norm(states.last)).norm(dim=1)
        spread = (states.last.var(1, correction=0) + norm.eps).sqrt()
        return 1 / lengths, 1 / (spread * lengths)

    def scaled_heads(self, states: ImageStates) -> Tensor:
        """The heads' z on the class token, each times its picture's `scales`: (n, L, H, d/H)."""
        mixed = torch.stack([found[:, 0] for found in states.mixed], 1)
        return mixed.unflatten(2, (self.tower.heads, self.tower.head_width)) * self.scales(states)[:, None, None, None]

    def head_terms(self, states: ImageStates) -> Tensor:
        """The terms of all heads, (n, L, H, D)."""
        return torch.einsum("nlhk,lhdk->nlhd", self.scaled_heads(states), self.heads)

    def other_components(self, states: ImageStates, direction: Tensor) -> dict[str, Tensor]:
        """The components of all other terms along a ``direction`` (D), summed by their kind: (n) each."""
        per_length, scale = self._spreads(states)
        read = self.map.t() @ direction
        biases = sum(self.tower.output(number).bias @ read for number in range(len(self.tower.layers)))
        norm_bias = self.tower.projection(self.tower.vision.post_layernorm.bias) @ direction
        return {
            "MLPs": torch.stack(states.mlps, 1).sum(1) @ read * scale,
            "embedding": states.inputs[0][:, 0] @ read * scale,
            "biases": scale * biases + per_length * norm_bias,
        }

    def terms(self, states: ImageStates) -> Terms:
        """All terms of a batch."""
        per_length, scale = self._spreads(states)
        biases = torch.stack([self.tower.output(number).bias for number in range(len(self.tower.layers))])
        norm_bias: Tensor = self.tower.projection(self.tower.vision.post_layernorm.bias)
        return Terms(
            heads=self.head_terms(states),
            biases=torch.einsum("n,ld->nld", scale, biases @ self.map.t()),
            mlps=torch.stack(states.mlps, 1) @ self.map.t() * scale[:, None, None],
            embedding=states.inputs[0][:, 0] @ self.map.t() * scale[:, None],
            norm=per_length[:, None] * norm_bias,
        )
