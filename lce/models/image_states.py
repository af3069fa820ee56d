"""What happens inside the image encoder of a CLIP on one batch of pictures, kept so that edits compute the rest alone.

An edit of the attention heads of some layers changes nothing below them. The states at the input of every layer are
kept for one batch, so that each edit starts at the first layer that it changes; and the last layer is computed for the
class token alone, because nothing else reaches the embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lce.models.image_tower import ImageTower

Outputs = Mapping[int, tuple[Tensor, Tensor]]
"""Layer → the weight W_O (d, d) and bias b_O (d) that an edit gives it."""


@dataclass(frozen=True)
class ImageStates:
    """One batch of n pictures in an image encoder of L layers.

    Attributes:
        inputs: by layer, the states that it is given, (n, tokens, d); the class token is the first.
        mixed: by layer, what its heads put together before W_O, (n, tokens, d), of the last layer (n, 1, d); head h has
            the columns from h · d/H on.
        mlps: by layer, what its MLP adds to the class token, (n, d).
        last: the class token's last state, (n, d).
    """

    tower: ImageTower
    inputs: list[Tensor]
    mixed: list[Tensor]
    mlps: list[Tensor]
    last: Tensor

    @classmethod
    @torch.inference_mode()
    def of(cls, tower: ImageTower, pixels: Tensor) -> ImageStates:
        """What ``pixels`` (n, 3, height, width) become."""
        vision = tower.vision
        states: Tensor = vision.pre_layrnorm(vision.embeddings(pixels))
        inputs, mixed, mlps = [], [], []
        for number in range(len(tower.layers)):
            inputs.append(states)
            mixed.append(attention(tower, number, states))
            middle, added = _finished(tower, number, states, tower.output(number)(mixed[-1]))
            mlps.append(added[:, 0])
            states = middle + added
        return cls(tower, inputs, mixed, mlps, states[:, 0])

    @torch.inference_mode()
    def embedding(self, edited: Outputs | None = None) -> Tensor:
        """The pictures' embeddings (n, D), of length 1; with the output projections of some layers ``edited``."""
        return self.tower.embedded(self.last) if not edited else next(found for _, found in self.embeddings([edited]))

    def embeddings(self, edits: Sequence[Outputs]) -> Iterator[tuple[int, Tensor]]:
        """The embeddings under each of the ``edits``, with its number, in some order.

        What edits have in common up to a layer, the same two tensors for each layer up to there, is computed once.
        """
        yield from self._descended(0, None, list(enumerate(edits)))

    @torch.inference_mode()
    def _descended(
        self, number: int, states: Tensor | None, edits: list[tuple[int, Outputs]]
    ) -> Iterator[tuple[int, Tensor]]:
        """The same from the layer ``number`` on, whose input is ``states``, or for None the unedited one."""
        if number == len(self.tower.layers):
            found = self.tower.embedded(self.last if states is None else states[:, 0])
            yield from ((index, found) for index, _ in edits)
            return
        alike: dict[int, list[tuple[int, Outputs]]] = {}
        for index, edit in edits:
            alike.setdefault(id(edit[number][0]) if number in edit else 0, []).append((index, edit))
        before, mixed = self.inputs[number], self.mixed[number]
        if states is not None:
            before, mixed = states, attention(self.tower, number, states)
        output = self.tower.output(number)
        for group in alike.values():
            weight, bias = group[0][1].get(number, (output.weight, output.bias))
            after = None
            if states is not None or number in group[0][1]:
                middle, added = _finished(self.tower, number, before, F.linear(mixed, weight, bias))
                after = middle + added
            yield from self._descended(number + 1, after, group)


def attention(tower: ImageTower, number: int, states: Tensor) -> Tensor:
    """What the heads of a layer put together, (n, tokens, d), before W_O; in the last layer for the class token."""
    layer = tower.layers[number]
    block = layer.self_attn
    normal: Tensor = layer.layer_norm1(states)
    asking = normal[:, :1] if number == len(tower.layers) - 1 else normal

    def by_head(values: Tensor) -> Tensor:
        return values.unflatten(-1, (tower.heads, tower.head_width)).transpose(1, 2)

    found = F.scaled_dot_product_attention(
        by_head(block.q_proj(asking)),
        by_head(block.k_proj(normal)),
        by_head(block.v_proj(normal)),
    )
    return found.transpose(1, 2).flatten(2)


def _finished(tower: ImageTower, number: int, states: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
    """The states after a layer's attention, and what its MLP adds to them: of as many tokens as ``attended`` has."""
    layer = tower.layers[number]
    middle = states[:, : attended.shape[1]] + attended
    return middle, layer.mlp(layer.layer_norm2(middle))
