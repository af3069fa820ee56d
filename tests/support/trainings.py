"""What trainings are compared by: the losses of every step, as Hugging Face Trainer has them, and the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from safetensors.torch import load_file
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from lce.data.collating import TokenBatch


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: dict[str, torch.Tensor], *_: Any) -> None:
        self.seen.append(outputs["loss"].item())


def labelled(batch: TokenBatch, shift: int = 0) -> dict[str, torch.Tensor]:
    """The batch as Trainer wants it: labels everywhere, −100 where nothing is predicted.

    Args:
        shift: how far behind its logits a label stands: 1 for a causal model.
    """
    labels = torch.full_like(batch.input_ids, -100)
    labels.view(-1)[batch.positions + shift] = batch.labels
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


def in_order(batches: Sequence[dict[str, torch.Tensor]], losses: list[float]) -> type[Trainer]:
    """A Trainer that takes these ``batches`` in their order, and notes the loss of every step in ``losses``."""

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(batches)

        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            loss = super().compute_loss(*arguments, **options)
            losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
            return loss

    return InOrder


def trainer_losses(
    model: PreTrainedModel,
    batches: Sequence[dict[str, torch.Tensor]],
    folder: Path,
    callbacks: list[TrainerCallback] | None = None,
) -> list[float]:
    """The loss of every step of Hugging Face Trainer on these batches, at a learning rate of 5e-3."""
    losses: list[float] = []
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        max_steps=len(batches),
        learning_rate=5e-3,
        weight_decay=0.01,
        max_grad_norm=0.0,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    made = in_order(batches, losses)
    made(model, arguments, data_collator=lambda one: one[0], train_dataset=batches, callbacks=callbacks).train()
    return losses


def dense_weights(experiment: Path) -> dict[str, torch.Tensor]:
    return load_file(experiment / "seed-0/stereotypical/sparsity-00/model.safetensors")


def assert_like_one(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=1e-5)
