"""The loss of every step is that of Hugging Face Trainer, given the same batches and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import own_sentences, tiny_bert
from lightning import Callback
from transformers import BertTokenizer, PreTrainedModel, Trainer, TrainingArguments

from lce.config import OptimisationSettings
from lce.data.batches import TrainingBatches
from lce.data.collating import TokenBatch
from lce.data.encoding import encode
from lce.data.masking import MaskingCollator, MaskingProbabilities
from lce.training.fit import fit

STEPS = 20


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: dict[str, torch.Tensor], *_: Any) -> None:
        self.seen.append(outputs["loss"].item())


def still_bert(tokenizer: BertTokenizer) -> PreTrainedModel:
    """Without dropout, which draws its own random numbers in every framework."""
    model = tiny_bert(tokenizer)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attention_probs_dropout_prob = 0.0
    for layer in model.bert.encoder.layer:
        layer.attention.self.dropout.p = 0.0
    return model


def labelled(batch: TokenBatch) -> dict[str, torch.Tensor]:
    """The batch as Trainer wants it: labels everywhere, −100 where nothing is predicted."""
    labels = torch.full_like(batch.input_ids, -100)
    labels.view(-1)[batch.positions] = batch.labels
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}


def test_losses_are_those_of_trainer(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    texts = own_sentences()
    encoded = encode(texts, texts, tokenizer, None, max_length=32)
    settings = OptimisationSettings(steps=STEPS, batch_size=16, learning_rate=5e-3, max_length=32, weight_decay=0.01)
    losses = Losses()
    options = {"accelerator": "cpu", "devices": 1}
    fit(still_bert(tokenizer), tokenizer, (encoded, encoded), settings, 7, options, tmp_path / "lce", "", [losses])

    plain = MaskingProbabilities(term=settings.mask_probability, other=settings.mask_probability)
    collator = MaskingCollator(encoded, tokenizer, plain, seed=7)
    batches = [labelled(collator(*batch)) for batch in TrainingBatches(encoded.sizes, 16, seed=7, steps=STEPS)]
    expected: list[float] = []

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(batches)

        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            loss = super().compute_loss(*arguments, **options)
            expected.append((loss[0] if isinstance(loss, tuple) else loss).item())
            return loss

    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        per_device_train_batch_size=1,
        max_steps=STEPS,
        learning_rate=5e-3,
        weight_decay=0.01,
        max_grad_norm=0.0,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    peer = still_bert(tokenizer)
    InOrder(peer, arguments, data_collator=lambda one: one[0], train_dataset=batches).train()
    assert losses.seen == pytest.approx(expected, abs=1e-5)
    assert losses.seen[-1] < losses.seen[0] - 0.1, "and it learns"
