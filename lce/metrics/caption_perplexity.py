"""Perplexity of captions of pictures, each read after a prompt with its picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import cross_entropy

from lce.models.image_text import ImageText


class CaptionLosses(NamedTuple):
    """Of each of n captions, the sum over its tokens of −log P, and how many tokens it has, both (n)."""

    losses: NDArray[np.float64]
    tokens: NDArray[np.float64]


def caption_losses(
    model: ImageText, pictures: Sequence[Callable[[], Image.Image]], prompt: str, captions: Sequence[str], size: int
) -> CaptionLosses:
    """How likely each caption is to follow the ``prompt`` about its picture, by the model as it is at the moment.

    Args:
        size: pictures that are read together.
    """
    start = prompt if prompt[-1:].isspace() else f"{prompt} "
    losses, counts = np.zeros(len(captions)), np.zeros(len(captions))
    for first in range(0, len(captions), size):
        shown = [opened() for opened in pictures[first : first + size]]
        texts = [f"{start}{caption}" for caption in captions[first : first + len(shown)]]
        inputs = model.inputs(shown, texts)
        prompts = model.inputs(shown, [prompt] * len(shown))
        lengths = (inputs["attention_mask"].sum(1) - prompts["attention_mask"].sum(1)).tolist()
        states = model.read(inputs, lambda *_: None, [])
        for row, length in enumerate(lengths):
            with torch.inference_mode():
                logits = model.model.get_output_embeddings()(states[row, -length - 1 : -1]).float()
                loss = cross_entropy(logits, inputs["input_ids"][row, -length:], reduction="sum")
            losses[first + row], counts[first + row] = float(loss), length
    return CaptionLosses(losses, counts)
