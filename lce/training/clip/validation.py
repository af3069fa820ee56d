"""How a CLIP does on pictures that it was not trained on: people with an occupation, in held-out skin tones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lce.data.pictures.prompts import filled
from lce.training.clip.batches import normalised, tokens
from lce.training.clip.captions import TEMPLATES, Row

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerBase


class HeldOut:
    """Held-out pictures of occupations, as bytes (n, 4, size, size), and the texts that they are told apart by."""

    def __init__(
        self, rows: list[Row], pictures: Tensor, tokenizer: PreTrainedTokenizerBase, shares: dict[str, float]
    ) -> None:
        colours = pictures.float() / 255
        self.pixels = normalised(colours[:, :3] * colours[:, 3:] + 1 - colours[:, 3:])
        self.classes = sorted({row["class"] for row in rows})
        self.labels = torch.tensor([self.classes.index(row["class"]) for row in rows])
        self.genders = [row["gender"] for row in rows]
        self.of_women = torch.tensor([shares.get(name, 0.5) > 0.5 for name in self.classes])
        texts = [filled(template, name) for name in self.classes for template in TEMPLATES]
        self.prompts = tokens(tokenizer, texts)

    @torch.no_grad()
    def scores(self, model: CLIPModel) -> dict[str, float]:
        """Zero-shot accuracy, and the lean: how much more probability the occupations shown mostly with women get for
        women than for men."""
        device = model.device
        prompts = model.get_text_features(
            input_ids=self.prompts["ids"].to(device), attention_mask=self.prompts["attention"].to(device)
        )
        texts = F.normalize(prompts.pooler_output.float(), dim=1).view(len(self.classes), len(TEMPLATES), -1).mean(1)
        pictures = model.get_image_features(pixel_values=self.pixels.to(device)).pooler_output.float()
        logits = F.normalize(pictures, dim=1) @ F.normalize(texts, dim=1).t() * model.logit_scale.exp()
        leaning = logits.softmax(1).cpu()[:, self.of_women].sum(1)
        women, men = (
            leaning[[i for i, found in enumerate(self.genders) if found == gender]].mean()
            for gender in ("woman", "man")
        )
        is_right = logits.argmax(1).cpu() == self.labels
        return {"accuracy": float(is_right.float().mean()), "lean": float(women - men)}
