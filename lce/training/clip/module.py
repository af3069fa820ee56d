"""The Lightning module that trains a CLIP: each picture is to be nearer to its caption than to all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from lce.training.clip.batches import ClipBatch
from lce.training.clip.settings import ClipOptimisation
from lce.training.clip.validation import HeldOut
from lce.training.module import linear_schedule

if TYPE_CHECKING:
    from transformers import CLIPModel

HIGHEST_SCALE = 4.6052
"""The logarithm of 100, beyond which the temperature does not fall (Radford et al. 2021, section 2.5)."""


class ClipModule(L.LightningModule):
    """Trains ``model`` in place with AdamW; validates by zero-shot classification of ``held_out`` pictures."""

    def __init__(self, model: CLIPModel, settings: ClipOptimisation, held_out: HeldOut) -> None:
        super().__init__()
        self.model, self.settings, self.held_out = model, settings, held_out

    def training_step(self, batch: ClipBatch, _: int) -> Tensor:
        pictures = self.model.get_image_features(pixel_values=batch.pixels).pooler_output
        texts = self.model.get_text_features(input_ids=batch.ids, attention_mask=batch.attention).pooler_output
        logits = similarities(pictures.float(), texts.float()) * self.model.logit_scale.exp()
        loss = contrastive_loss(logits, batch.caption)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(logits))
        return loss

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=HIGHEST_SCALE)

    def validation_step(self, batch: Tensor, _: int) -> None:
        """One batch, the indices of all held-out pictures."""
        scores = self.held_out.scores(self.model)
        self.log_dict({f"validation/{name}": value for name, value in scores.items()}, batch_size=1, prog_bar=True)

    def configure_optimizers(self) -> Any:
        train = self.settings
        matrices = [parameter for parameter in self.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.parameters() if parameter.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(train.warmup_steps, train.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def similarities(pictures: Tensor, texts: Tensor) -> Tensor:
    """Cosine of every picture with every text, (n, m), from embeddings of any length."""
    return F.normalize(pictures, dim=1) @ F.normalize(texts, dim=1).t()


def contrastive_loss(logits: Tensor, caption: Tensor) -> Tensor:
    """Cross-entropy from pictures to texts and back, from ``logits`` (n, n); pictures of the same ``caption`` share it.

    With all captions different it is the loss of Radford et al. (2021), figure 3.
    """
    same = (caption[:, None] == caption[None, :]).float()
    targets = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.t(), targets)) / 2
