"""The loss of every step is that of Hugging Face Trainer, given the same batches and masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import own_sentences, tiny_bert
from trainings import Losses, labelled, trainer_losses
from transformers import BertTokenizer, PreTrainedModel, TrainerCallback

from lce.config import OptimisationSettings
from lce.data.batches import TrainingBatches
from lce.data.encoding import EncodedTexts, encode
from lce.data.masking import MaskingCollator, MaskingProbabilities
from lce.data.specification import BiasSpecification
from lce.metrics.perplexity import token_losses
from lce.models.layers import prunable_parameters
from lce.storage.masks import Mask, magnitude_prune
from lce.training.fit import fit
from lce.training.module import LanguageModel
from lce.training.pruning.mask_callback import MaskCallback

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


SETTINGS = OptimisationSettings(
    steps=STEPS, batch_size=16, learning_rate=5e-3, max_length=32, weight_decay=0.01, term_probability=0.5
)
OPTIONS = {"accelerator": "cpu", "devices": 1}


@pytest.fixture
def encoded(tokenizer: BertTokenizer, spec: BiasSpecification) -> EncodedTexts:
    texts = own_sentences()
    return encode(texts, texts, tokenizer, spec, max_length=32)


def batches(encoded: EncodedTexts, tokenizer: BertTokenizer) -> list[dict[str, torch.Tensor]]:
    """Those of a training, in which terms are masked with a probability of 0.5, and 0.15 of all tokens on average."""
    counted = int((~torch.isin(encoded.ids, torch.tensor(tokenizer.all_special_ids))).sum())
    terms = int(encoded.is_term.sum())
    assert terms > 100
    preferential = MaskingProbabilities(term=0.5, other=(0.15 * counted - 0.5 * terms) / (counted - terms))
    collator = MaskingCollator(encoded, tokenizer, preferential, seed=7)
    return [labelled(collator(*batch)) for batch in TrainingBatches(encoded.sizes, 16, seed=7, steps=STEPS)]


def test_losses_are_those_of_trainer(tokenizer: BertTokenizer, encoded: EncodedTexts, tmp_path: Path) -> None:
    losses, model = Losses(), still_bert(tokenizer)
    _, perplexity = fit(model, tokenizer, (encoded, encoded), SETTINGS, 7, OPTIONS, tmp_path / "lce", "", [losses])
    expected = trainer_losses(still_bert(tokenizer), batches(encoded, tokenizer), tmp_path / "trainer")
    assert losses.seen == pytest.approx(expected, abs=1e-5)
    assert losses.seen[-1] < losses.seen[0] - 0.1, "and it learns"

    plain = MaskingCollator(encoded, tokenizer, MaskingProbabilities(term=0.15, other=0.15), seed=0)
    with torch.no_grad():
        of_tokens = token_losses(model.eval(), plain(0, range(len(encoded.sizes))))
    assert perplexity == pytest.approx(of_tokens.mean().exp().item(), rel=1e-5), "terms are not preferred there"


def test_under_a_mask_the_losses_are_those_of_trainer_under_it(
    tokenizer: BertTokenizer, encoded: EncodedTexts, tmp_path: Path
) -> None:
    parameters = prunable_parameters(still_bert(tokenizer))
    mask, losses = magnitude_prune(parameters, Mask.dense(parameters), 0.4), Losses()
    callbacks = [MaskCallback(mask), losses]
    fit(still_bert(tokenizer), tokenizer, (encoded, encoded), SETTINGS, 7, OPTIONS, tmp_path / "lce", "", callbacks)

    model = still_bert(tokenizer)
    mask.apply_(prunable_parameters(model))

    class Masked(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            with torch.no_grad():
                mask.apply_(prunable_parameters(model))

    expected = trainer_losses(model, batches(encoded, tokenizer), tmp_path / "trainer", [Masked()])
    assert losses.seen == pytest.approx(expected, abs=1e-5)


def test_what_is_frozen_stays_and_the_learning_rate_warms_up(
    tokenizer: BertTokenizer, encoded: EncodedTexts, tmp_path: Path
) -> None:
    model, settings = still_bert(tokenizer), replace(SETTINGS, steps=2, warmup_steps=1, freeze=["embeddings"])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer, _ = fit(model, tokenizer, (encoded, encoded), settings, 7, OPTIONS, tmp_path / "lce", "")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == ("embeddings" in name), name
    assert isinstance(trainer.lightning_module, LanguageModel)
    assert trainer.lightning_module.warmup_steps == 1
