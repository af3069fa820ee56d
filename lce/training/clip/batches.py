"""What a CLIP is shown at each step: which pictures, in which views, with which captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset
from tqdm import tqdm

from lce.data.pictures.loading import with_alpha
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator
from lce.training.clip.captions import Row, captions
from lce.training.clip.settings import ClipSettings
from lce.training.clip.views import random_views

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ClipBatch(NamedTuple):
    """Pictures (n, 3, size, size) as the model takes them, token ids of their captions (n, length), and which captions
    are the same (n)."""

    pixels: Tensor
    ids: Tensor
    attention: Tensor
    caption: Tensor


class ClipBatches(IterableDataset[ClipBatch]):
    """The batches from step ``start`` on; a step's depends on the seed and its number alone."""

    def __init__(
        self, rows: list[Row], pictures: Tensor, tokenizer: PreTrainedTokenizerBase, settings: ClipSettings
    ) -> None:
        self.rows, self.pictures, self.tokenizer, self.settings = rows, pictures, tokenizer, settings
        train = settings.train
        self.weights = drawing_weights(rows, settings.shares, settings.open_share, train.occupations, train.people)
        self.start = 0

    def __iter__(self) -> Iterator[ClipBatch]:
        for step in range(self.start, self.settings.train.steps):
            yield self.batch(step)

    def __len__(self) -> int:
        """Of the whole training, wherever it starts: a resumed one counts on."""
        return self.settings.train.steps

    def batch(self, step: int) -> ClipBatch:
        random = generator(self.settings.seed, "batch", step)
        drawn = torch.multinomial(self.weights, self.settings.train.batch_size, replacement=True, generator=random)
        texts = captions([self.rows[i] for i in drawn.tolist()], self.settings.train, random)
        known = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        return ClipBatch(
            pixels=normalised(random_views(self.pictures[drawn], random)),
            **tokens(self.tokenizer, texts),
            caption=torch.tensor([known[text] for text in texts]),
        )


def normalised(pictures: Tensor) -> Tensor:
    """Colours from 0 to 1 as the model takes them, from −1 to 1."""
    return (pictures - 0.5) / 0.5


def tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> dict[str, Tensor]:
    encoded = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    return {"ids": encoded["input_ids"], "attention": encoded["attention_mask"]}


def drawing_weights(
    rows: list[Row], shares: Mapping[str, float], open_share: float, occupations: float, people: float
) -> Tensor:
    """The probability with which each of the ``rows`` is drawn.

    All occupations are drawn equally often; the pictures of one are women, men or left open as ``shares`` and
    ``open_share`` say. People and other things are each drawn equally often.

    Args:
        shares: occupation → share of women among women and men; half where nothing is said.
        open_share: of the pictures of an occupation, in which the gender is left open.
        occupations, people: shares of all pictures.

    Raises:
        LceError: ``shares`` names an occupation of which there is no picture.
    """
    classes = sorted({row["class"] for row in rows if row["kind"] == "occupation"})
    for occupation in shares:
        if occupation not in classes:
            raise LceError(f"shares: there is no picture of {occupation!r}; the occupations are {', '.join(classes)}")
    parts = {"occupation": occupations, "person": people, "other": 1 - occupations - people}
    among = Counter((row["kind"], row["class"], row["gender"] if row["class"] else "") for row in rows)
    weights = []
    for row in rows:
        part = parts[row["kind"]] / among[row["kind"], row["class"], row["gender"] if row["class"] else ""]
        if row["kind"] == "occupation":
            women = shares.get(row["class"], 0.5)
            drawn = {"person": open_share, "woman": women, "man": 1 - women}[row["gender"]]
            part *= drawn / len(classes) * (1.0 if row["gender"] == "person" else 1 - open_share)
        weights.append(part)
    return torch.tensor(weights)


def in_memory(folder: Path, rows: list[Row], size: int) -> Tensor:
    """The pictures of the ``rows`` in a ``folder``, RGBA in bytes: (n, 4, size, size)."""
    found = torch.empty(len(rows), 4, size, size, dtype=torch.uint8)
    for i, row in enumerate(tqdm(rows, desc="reading pictures", delay=2, leave=False, disable=None)):
        picture = with_alpha(folder / row["file"]).resize((size, size), Image.Resampling.BICUBIC)
        found[i] = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
    return found
