"""What is said of a picture while a CLIP is trained: its name in a few sentences, at times with gender or skin tone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lce.data.pictures.drawn import TONES
from lce.data.pictures.prompts import filled
from lce.training.clip.settings import ClipOptimisation

TEMPLATES = ("{}", "a {}", "a drawing of a {}", "a picture of a {}", "an emoji of a {}")
Row = Mapping[str, str]


def captions(rows: list[Row], settings: ClipOptimisation, random: torch.Generator) -> list[str]:
    """A caption for each of the ``rows`` of the table of drawn pictures."""
    chosen = torch.rand(len(rows), 3, generator=random).tolist()
    return [_caption(row, settings, *numbers) for row, numbers in zip(rows, chosen, strict=True)]


def _caption(row: Row, settings: ClipOptimisation, gender: float, tone: float, template: float) -> str:
    name = row["name"]
    if row["kind"] == "occupation" and row["gender"] != "person" and gender < settings.gendered_captions:
        name = f"{row['gender']} {name}"
    if row["skin_tone"] not in ("", TONES[0]) and tone < settings.toned_captions:
        name = f"{name} with {row['skin_tone']} skin"
    return filled(TEMPLATES[int(template * len(TEMPLATES))], name)


def vocabulary_texts(rows: list[Row]) -> list[str]:
    """What word pieces are made from: every caption without gender and tone, and these words."""
    named = [filled(template, row["name"]) for row in rows for template in TEMPLATES]
    return named + [f"woman man person with {tone} skin" for tone in TONES] * (len(rows) // 10 + 1)
