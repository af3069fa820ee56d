from __future__ import annotations

import pytest
from transformers import BertForMaskedLM

from lce.foundations.errors import LceError
from lce.training.module import MaskedLanguageModel, linear_schedule


def test_freezing(model: BertForMaskedLM) -> None:
    module = MaskedLanguageModel(model, 1e-3, 10, 0, freeze=["embeddings"])
    assert not model.bert.embeddings.word_embeddings.weight.requires_grad
    assert model.bert.encoder.layer[0].output.dense.weight.requires_grad
    assert all(
        p.requires_grad for group in module.configure_optimizers()["optimizer"].param_groups for p in group["params"]
    )
    with pytest.raises(LceError, match="matches no parameter"):
        MaskedLanguageModel(model, 1e-3, 10, 0, freeze=["no such name"])


def test_the_learning_rate_rises_and_falls_linearly() -> None:
    factor = linear_schedule(warmup_steps=4, steps=14)
    assert [factor(step) for step in (0, 1, 3)] == pytest.approx([0.2, 0.4, 0.8])
    assert [factor(step) for step in (4, 9, 14)] == pytest.approx([1.0, 0.5, 0.0])
    assert linear_schedule(0, 10)(0) == 1.0
