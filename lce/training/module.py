"""The Lightning modules that train and validate masked and causal language models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from lce.config import Kind
from lce.data.collating import TokenBatch
from lce.foundations.errors import LceError
from lce.foundations.seeds import derive
from lce.metrics.perplexity import Perplexity, token_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LanguageModel(L.LightningModule):
    """Trains a language model with AdamW and linear warm-up and decay; validates by perplexity.

    What is predicted is in the batches: masked tokens, or all next ones.

    Args:
        model: the Hugging Face model that is trained in place.
        learning_rate: the highest learning rate.
        steps: optimiser steps, over which the learning rate falls to zero.
        seed: seed of the dropout, which depends on it and on the step alone.
        warmup_steps: steps over which the learning rate rises to its highest.
        weight_decay: decoupled weight decay, on matrices only.
        freeze: regular expressions; parameters whose name matches one anywhere are not trained.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        learning_rate: float = 1e-5,
        steps: int = 1,
        seed: int = 0,
        warmup_steps: int = 0,
        weight_decay: float = 0.0,
        freeze: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.steps, self.warmup_steps, self.seed = steps, warmup_steps, seed
        self.perplexity = Perplexity("perplexity")
        self.matrices = {name for name, parameter in self.named_parameters() if parameter.ndim > 1}
        for pattern in freeze or []:
            matching = [parameter for name, parameter in model.named_parameters() if re.search(pattern, name)]
            if not matching:
                raise LceError(f"train.freeze: {pattern!r} matches no parameter of the model")
            for parameter in matching:
                parameter.requires_grad_(False)

    @contextmanager
    def whole_parameters(self) -> Iterator[dict[str, nn.Parameter]]:
        """The model's parameters by name; where FSDP has divided them over processes, put together for the while."""
        wrapper = self._trainer.strategy.model if self._trainer else None
        whole: AbstractContextManager[None] = nullcontext()
        if isinstance(wrapper, FullyShardedDataParallel):
            whole = FullyShardedDataParallel.summon_full_params(wrapper)
        with whole:
            yield dict(self.model.named_parameters())

    def forward(self, batch: TokenBatch) -> Tensor:
        """Cross-entropy at each of the M positions that are asked for, shape (M,)."""
        return token_losses(self.model, batch)

    def on_train_batch_start(self, batch: TokenBatch, batch_idx: int) -> None:
        part = batch_idx % self.trainer.accumulate_grad_batches
        torch.manual_seed(derive(self.seed, "dropout", self.global_step, part, self.global_rank))

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        loss = self.loss(self(batch), batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=max(batch.labels.numel(), 1))
        return loss

    def loss(self, losses: Tensor, batch: TokenBatch) -> Tensor:
        """What is minimised, from the ``losses`` (M,) of a step, or of a share of it."""
        return losses.sum() / batch.mean_count

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        self.perplexity.add(batch, self(batch))
        is_training = self.trainer.state.fn == "fit"
        self.log("validation/perplexity", self.perplexity, prog_bar=True, logger=is_training, on_epoch=True)

    def configure_optimizers(self) -> Any:
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        groups = [
            {"params": [p for name, p in trained.items() if name in self.matrices], "weight_decay": self.weight_decay},
            {"params": [p for name, p in trained.items() if name not in self.matrices], "weight_decay": 0.0},
        ]
        # The fused kernel is several times faster, but in mixed precision Lightning cannot clip gradients before it.
        trainer = self._trainer
        clipped = trainer is not None and trainer.gradient_clip_val and str(trainer.precision).endswith("mixed")
        fused = self.device.type in ("cpu", "cuda") and not clipped
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, eps=1e-8, fused=fused)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(self.warmup_steps, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class MaskedLanguageModel(LanguageModel):
    """Predicts masked tokens from both sides; the specification's terms are masked more often than others."""


class CausalLanguageModel(LanguageModel):
    """Predicts each token from those before it; the loss of the specification's terms weighs more than that of others.

    The mean weight over the corpus is 1 (`lce.data.next_token`).
    """

    def loss(self, losses: Tensor, batch: TokenBatch) -> Tensor:
        return super().loss(losses * batch.weights, batch)


MODULES: dict[Kind, type[LanguageModel]] = {"masked": MaskedLanguageModel, "causal": CausalLanguageModel}


def checked(module: L.LightningModule) -> LanguageModel:
    """``module`` with its type, for callbacks, which Lightning gives any module."""
    assert isinstance(module, LanguageModel), "this callback works on a LanguageModel"
    return module


def linear_schedule(warmup_steps: int, steps: int) -> Callable[[int], float]:
    """Factor on the learning rate at a step: up to one in ``warmup_steps``, down to zero at ``steps``."""
    return lambda step: min((step + 1) / (warmup_steps + 1), max(0.0, (steps - step) / max(1, steps - warmup_steps)))
