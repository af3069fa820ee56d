"""What the visual tokens of pictures lean towards in every layer: LALS, read in batches, with nothing kept of a batch
but its scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lce.foundations.seeds import generator
from lce.localize.lals import TextReference, leaning, of_pictures
from lce.models.image_text import ImageText

SEARCHED = 1 << 25
"""Cosines, of tokens with texts, that are in memory together."""


@dataclass(frozen=True)
class VisualLeaning:
    """The leaning of pictures, by layer.

    Attributes:
        maps: LALS of each picture's visual tokens, in their order: (layers, tokens) for each picture.
        scores: of the pictures, (layers, pictures).
        shuffled: the same for each shuffle of the texts' labels, (shuffles, layers, pictures).
        means: the mean state of a picture's visual tokens, (layers, pictures, width).
    """

    maps: list[Tensor]
    scores: Tensor
    shuffled: Tensor
    means: Tensor


def shuffled_labels(labels: Tensor, count: int, seed: int) -> Tensor:
    """So many random orders of the ``labels``: (count, n). As many texts of each group stay."""
    orders = [torch.randperm(len(labels), generator=generator(seed, "labels", i)) for i in range(count)]
    return labels[torch.stack(orders)] if orders else labels.new_empty(0, len(labels))


def read_leaning(
    model: ImageText,
    reference: TextReference,
    pictures: Sequence[Callable[[], Image.Image]],
    prompt: str,
    k: int,
    top: float,
    shuffles: Tensor,
    batch_size: int,
) -> VisualLeaning:
    """Read each of the ``pictures`` with the ``prompt``.

    Args:
        k: texts that a token is compared with.
        top: the share of a picture's tokens, those that lean most, that make its score.
        shuffles: labels in other orders, (shuffles, n): see `shuffled_labels`.
    """
    layers, count = len(model.layers), len(pictures)
    labels = torch.cat([reference.labels[None], shuffles]).to(model.device)
    scores = torch.zeros(len(labels), layers, count)
    means = torch.zeros(layers, count, reference.states.shape[-1])
    maps: list[Tensor] = []
    with tqdm(total=count, desc="reading pictures", leave=False, delay=2, disable=None) as bar:
        for start in range(0, count, batch_size):
            shown = [opened() for opened in pictures[start : start + batch_size]]
            inputs = model.inputs(shown, [prompt] * len(shown))
            visual = model.is_visual(inputs["input_ids"])
            lengths = visual.sum(1).tolist()
            here = [torch.zeros(layers, length) for length in lengths]

            def see(
                layer: int, states: Tensor, visual: Tensor = visual, lengths: list[int] = lengths, start: int = start,
                here: list[Tensor] = here,
            ) -> None:  # fmt: skip
                tokens = states[visual]
                found = torch.cat([
                    leaning(labels, reference.nearest(layer, some, k)).cpu()
                    for some in tokens.split(max(1, SEARCHED // len(reference.labels)))
                ], 1)  # fmt: skip
                for row, own in enumerate(found.split(lengths, 1)):
                    here[row][layer] = own[0]
                    scores[:, layer, start + row] = of_pictures(own, top)
                for row, own in enumerate(tokens.split(lengths)):
                    means[layer, start + row] = own.float().mean(0).cpu()

            model.read(inputs, see)
            maps += here
            bar.update(len(shown))
    return VisualLeaning(maps, scores[0], scores[1:], means)
