"""The Lightning module that trains a projector: the decoder is to answer with a picture's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from lce.models.assembled import projector_of
from lce.training.module import linear_schedule
from lce.training.projector.batches import IGNORED, Answered
from lce.training.projector.settings import ProjectorOptimisation
from lce.training.projector.validation import HeldOutAnswers

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration


class ProjectorModule(L.LightningModule):
    """Trains the projector of ``model`` in place with AdamW; all its other weights stay, and are in no checkpoint."""

    def __init__(
        self, model: LlavaForConditionalGeneration, settings: ProjectorOptimisation, held_out: HeldOutAnswers
    ) -> None:
        super().__init__()
        model.requires_grad_(False)
        self.projector = projector_of(model).train().requires_grad_(True)
        self.settings, self.held_out = settings, held_out
        self.whole: list[Any] = [model]  # in a list, so that Lightning does not take it for a part of its own

    def on_fit_start(self) -> None:
        self.whole[0].to(self.device)

    def training_step(self, batch: Answered, _: int) -> Tensor:
        model = self.whole[0]
        states = model.model(
            input_ids=batch.ids, attention_mask=batch.attention, pixel_values=batch.pixels, use_cache=False
        )[0]
        wanted = batch.labels[:, 1:] != IGNORED
        logits = model.lm_head(states[:, :-1][wanted])
        loss = F.cross_entropy(logits.float(), batch.labels[:, 1:][wanted])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.ids))
        return loss

    def validation_step(self, batch: Tensor, _: int) -> None:
        """One batch, which says nothing: the held-out pictures are the module's own."""
        scores = self.held_out.scores(self.whole[0])
        self.log_dict({f"validation/{name}": value for name, value in scores.items()}, batch_size=1, prog_bar=True)

    def configure_optimizers(self) -> Any:
        train = self.settings
        matrices = [parameter for parameter in self.projector.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.projector.parameters() if parameter.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(train.warmup_steps, train.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
