"""The loss of every step is that of Hugging Face Trainer, given the same batches and masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import own_sentences, tiny_bert
from trainings import Losses, labelled, trainer_losses
from transformers import BertTokenizer, PreTrainedModel

from lce.config import OptimisationSettings
from lce.data.batches import TrainingBatches
from lce.data.encoding import encode
from lce.data.masking import MaskingCollator, MaskingProbabilities
from lce.training.fit import fit

STEPS = 20


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
    expected = trainer_losses(still_bert(tokenizer), batches, tmp_path / "trainer")
    assert losses.seen == pytest.approx(expected, abs=1e-5)
    assert losses.seen[-1] < losses.seen[0] - 0.1, "and it learns"
