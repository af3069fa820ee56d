"""What a vision-language model answers about pictures that its projector was not trained on."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from lce.training.clip.captions import Row
from lce.training.projector.batches import Prompt

LONGEST = 16
"""Tokens of an answer at most."""
BATCH = 60
"""Pictures that are answered together."""


class HeldOutAnswers:
    """Held-out pictures of occupations, as bytes (n, 4, size, size), and what is to be said of them."""

    def __init__(self, rows: list[Row], pictures: Tensor, prompt: Prompt) -> None:
        self.rows, self.prompt = rows, prompt
        colours = pictures.float() / 255
        self.pixels = prompt.normalised(colours[:, :3] * colours[:, 3:] + 1 - colours[:, 3:])

    def answers(self, model: Any) -> list[str]:
        """What the model says of each picture, word by the likeliest word."""
        found: list[str] = []
        for pixels in self.pixels.split(BATCH):
            ids = torch.tensor(self.prompt.ids, device=model.device).expand(len(pixels), -1)
            said = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels.to(model.device),
                max_new_tokens=LONGEST, do_sample=False,
            )  # fmt: skip
            tokenizer = self.prompt.processor.tokenizer
            found += tokenizer.batch_decode(said[:, ids.shape[1] :], skip_special_tokens=True)
        return found

    @torch.no_grad()
    def scores(self, model: Any) -> dict[str, float]:
        """Shares of the pictures whose occupation is named right; whose gender is, of those that show one; and of which
        none is named, of those that show none."""
        return shares_named(self.rows, self.answers(model))


def shares_named(rows: list[Row], answers: list[str]) -> dict[str, float]:
    """The shares of ``answers`` that name what the ``rows`` of the table say: see `HeldOutAnswers.scores`."""
    occupation, gender, none = [], [], []
    for row, answer in zip(rows, answers, strict=True):
        occupation.append(bool(re.search(rf"\b{re.escape(row['class'])}\b", answer)))
        named = set(re.findall(r"\b(woman|man)\b", answer))
        if row["gender"] == "person":
            none.append(not named)
        else:
            gender.append(named == {row["gender"]})
    shares = {"occupation": occupation, "gender": gender, "none": none}
    return {name: sum(right) / len(right) for name, right in shares.items() if right}
