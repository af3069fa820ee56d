"""What a vision-language model is shown while its projector is trained: pictures with a question and an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from lce.data.pictures.prompts import filled
from lce.foundations.seeds import generator
from lce.training.clip.batches import drawing_weights
from lce.training.clip.captions import Row
from lce.training.clip.views import random_views
from lce.training.projector.settings import ProjectorSettings

if TYPE_CHECKING:
    from transformers import LlavaProcessor

IGNORED = -100
"""Label of a token that is not learned."""


class Answered(NamedTuple):
    """Pictures (n, 3, size, size) as the model takes them, and their prompts with the answers (n, length): token ids,
    attention, and labels, `IGNORED` but for the answer's tokens."""

    pixels: Tensor
    ids: Tensor
    attention: Tensor
    labels: Tensor


def spoken_name(row: Row) -> str:
    """What a picture shows, with the gender where it is drawn: woman firefighter, or firefighter."""
    is_drawn = row["kind"] == "occupation" and row["gender"] in ("woman", "man")
    return f"{row['gender']} {row['name']}" if is_drawn else row["name"]


class Prompt:
    """The question about one picture, as the processor writes it.

    Attributes:
        ids: its tokens, with those of the picture.
    """

    def __init__(self, processor: LlavaProcessor, question: str) -> None:
        self.processor = processor
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turns: Any = [{"role": "user", "content": content}]
        self.text: str = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        size = processor.image_processor.crop_size
        blank = Image.new("RGB", (size["width"], size["height"]))
        self.ids: list[int] = processor(images=blank, text=self.text, truncation=False)["input_ids"][0]
        self.end: int = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")

    def normalised(self, pictures: Tensor) -> Tensor:
        """Colours from 0 to 1, (n, 3, size, size), as the image encoder takes them."""
        about = self.processor.image_processor
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (about.image_mean, about.image_std))
        return (pictures - mean) / deviation

    def answered(self, answers: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, attention and labels of the question with each of the ``answers``: (n, length)."""
        tokens = self.processor.tokenizer(answers, add_special_tokens=False)["input_ids"]
        ends = [[*found, self.end] for found in tokens]
        longest = len(self.ids) + max(map(len, ends))
        ids = torch.full((len(answers), longest), self.end)
        labels = torch.full_like(ids, IGNORED)
        attention = torch.zeros_like(ids)
        for row, end in enumerate(ends):
            whole = [*self.ids, *end]
            ids[row, : len(whole)] = torch.tensor(whole)
            attention[row, : len(whole)] = 1
            labels[row, len(self.ids) : len(whole)] = torch.tensor(end)
        return ids, attention, labels


class AnsweredBatches(IterableDataset[Answered]):
    """The batches from step ``start`` on; a step's depends on the seed and its number alone."""

    def __init__(self, rows: list[Row], pictures: Tensor, prompt: Prompt, settings: ProjectorSettings) -> None:
        self.rows, self.pictures, self.prompt, self.settings = rows, pictures, prompt, settings
        train = settings.train
        self.weights = drawing_weights(rows, settings.shares, settings.open_share, train.occupations, train.people)
        self.start = 0

    def __iter__(self) -> Iterator[Answered]:
        for step in range(self.start, self.settings.train.steps):
            yield self.batch(step)

    def __len__(self) -> int:
        """Of the whole training, wherever it starts: a resumed one counts on."""
        return self.settings.train.steps

    def batch(self, step: int) -> Answered:
        random = generator(self.settings.seed, "batch", step)
        drawn = torch.multinomial(self.weights, self.settings.train.batch_size, replacement=True, generator=random)
        answers = [filled(self.settings.answer, spoken_name(self.rows[i])) for i in drawn.tolist()]
        pixels = self.prompt.normalised(random_views(self.pictures[drawn], random))
        return Answered(pixels, *self.prompt.answered(answers))
