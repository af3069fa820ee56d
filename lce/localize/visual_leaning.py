"""What the visual tokens of pictures lean towards in every layer: LALS, read in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lce.foundations.seeds import generator
from lce.localize.lals import TextReference, leaning, of_pictures
from lce.models.image_text import Grid, ImageText, Prompted
from lce.models.shifts import Shift

SEARCHED = 1 << 25
"""Cosines, of tokens with texts, that are in memory together."""
Openers = Sequence[Callable[[], Image.Image]]
"""What opens each of some pictures."""


class Measure(NamedTuple):
    """How pictures are read and scored.

    Attributes:
        prompt: what is asked about each picture.
        k: texts that a token is compared with.
        top: the share of a picture's tokens, those that lean most, that make its score.
        batch_size: pictures that are read together.
    """

    prompt: str
    k: int
    top: float
    batch_size: int


@dataclass(frozen=True)
class VisualLeaning:
    """The leaning of pictures, by layer.

    Attributes:
        scores: of the pictures, (layers, pictures).
        shuffled: the same for each shuffle of the texts' labels, (shuffles, layers, pictures).
        maps: LALS of each picture's visual tokens, in their order: (layers, tokens) for each picture.
        grids: how the tokens of each picture lie in it; see `ImageText.grids`.
        means: the mean state of a picture's visual tokens, (layers, pictures, width).

    The last three are empty where only scores were asked for: they take the most memory.
    """

    scores: Tensor
    shuffled: Tensor
    maps: list[Tensor]
    grids: list[Grid | None]
    means: Tensor


def shuffled_labels(labels: Tensor, count: int, seed: int) -> Tensor:
    """So many random orders of the ``labels``: (count, n). As many texts of each group stay."""
    orders = [torch.randperm(len(labels), generator=generator(seed, "labels", i)) for i in range(count)]
    return labels[torch.stack(orders)] if orders else labels.new_empty(0, len(labels))


def read_leaning(
    model: ImageText,
    reference: TextReference,
    pictures: Openers,
    measure: Measure,
    shuffles: Tensor,
    scores_alone: bool = False,
) -> VisualLeaning:
    """Read each of the ``pictures``; ``shuffles`` are labels in other orders, (shuffles, n): see `shuffled_labels`."""
    layers, count = len(model.layers), len(pictures)
    labels = torch.cat([reference.labels[None], shuffles]).to(model.device)
    scores = torch.zeros(len(labels), layers, count)
    means = torch.zeros(layers, 0 if scores_alone else count, reference.states.shape[-1])
    maps: list[Tensor] = []
    grids: list[Grid | None] = []
    for batch in _batches(model, pictures, measure):
        here = [torch.zeros(layers, length) for length in batch.lengths]

        def see(layer: int, states: Tensor, batch: Batch = batch, here: list[Tensor] = here) -> None:
            tokens = states[batch.visual]
            found = leaning_of_tokens(reference, labels, layer, tokens, measure.k)
            for row, own in enumerate(found.split(batch.lengths, 1)):
                here[row][layer] = own[0]
                scores[:, layer, batch.start + row] = of_pictures(own, measure.top)
            for row, own in enumerate([] if scores_alone else tokens.split(batch.lengths)):
                means[layer, batch.start + row] = own.float().mean(0).cpu()

        model.read(batch.inputs, see)
        if not scores_alone:
            maps += here
            grids += model.grids(batch.inputs)
    return VisualLeaning(scores[0], scores[1:], maps, grids, means)


def leaning_under(
    model: ImageText,
    reference: TextReference,
    pictures: Openers,
    measure: Measure,
    shifts: Mapping[int, Sequence[Shift]],
) -> dict[int, Shifted]:
    """The scores of ``pictures`` in a layer with each of some ``shifts`` added to their visual tokens there.

    Args:
        shifts: by layer. What a layer puts out is shifted on its own; nothing is shifted in the layers before it.
    """
    scores = {layer: torch.zeros(len(several), len(pictures)) for layer, several in shifts.items()}
    squares = {layer: torch.zeros(len(several), dtype=torch.float64) for layer, several in shifts.items()}
    count = 0
    placed = {layer: [shift.to(model.device) for shift in several] for layer, several in shifts.items()}
    labels = reference.labels.to(model.device)
    for batch in _batches(model, pictures, measure):

        def see(layer: int, states: Tensor, batch: Batch = batch) -> None:
            tokens = states[batch.visual]
            for number, shift in enumerate(placed[layer]):
                added = shift.of(tokens)
                squares[layer][number] += float(added.double().square().sum())
                found = leaning_of_tokens(reference, labels, layer, tokens + added.to(tokens.dtype), measure.k)
                for row, own in enumerate(found.split(batch.lengths)):
                    scores[layer][number, batch.start + row] = of_pictures(own, measure.top)

        model.read(batch.inputs, see, sorted(shifts))
        count += sum(batch.lengths)
    return {layer: Shifted(found, (squares[layer] / count).sqrt()) for layer, found in scores.items()}


class Shifted(NamedTuple):
    """What shifts do in a layer.

    Attributes:
        scores: of the pictures, (shifts, pictures).
        sizes: root mean square of the length of what is added to a visual token, (shifts,).
    """

    scores: Tensor
    sizes: Tensor


class Batch(NamedTuple):
    """Some pictures as the model reads them, the first of them the ``start``-th.

    Attributes:
        visual: which tokens are those of a picture, (pictures, positions).
        lengths: how many each picture has.
    """

    start: int
    inputs: dict[str, Tensor]
    visual: Tensor
    lengths: list[int]


def _batches(model: ImageText, pictures: Openers, measure: Measure) -> Iterator[Batch]:
    start = 0
    with tqdm(total=len(pictures), desc="reading pictures", leave=False, delay=2, disable=None) as bar:
        for inputs in Prompted(model, pictures, measure.prompt, measure.batch_size):
            visual = model.is_visual(inputs["input_ids"])
            yield Batch(start, inputs, visual, visual.sum(1).tolist())
            start += len(visual)
            bar.update(len(visual))


def leaning_of_tokens(reference: TextReference, labels: Tensor, layer: int, tokens: Tensor, k: int) -> Tensor:
    """LALS of ``tokens`` (m, width), for each of the rows of ``labels`` if there are several: (…, m)."""
    size = max(1, SEARCHED // len(reference.labels))
    parts = [leaning(labels, reference.nearest(layer, some, k)).cpu() for some in tokens.split(size)]
    return torch.cat(parts, -1)
