"""Which kind of language model a folder holds, and what is neither."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from architectures import saved
from conftest import tiny_bert
from transformers import (
    AutoConfig,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from lce.foundations.errors import LceError
from lce.models.kinds import kind_named, kind_of
from lce.models.loading import load_language_model

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PARTS = {"text_config": SMALL, "vision_config": SMALL | {"image_size": 8, "patch_size": 4}, "projection_dim": 8}
OTHERS = {
    "a sequence-to-sequence model (T5ForConditionalGeneration)": T5ForConditionalGeneration,
    "a model for token classification (BertForTokenClassification)": lambda config: BertForTokenClassification(config),
    "a model for image classification (ViTForImageClassification)": lambda: ViTForImageClassification(
        ViTConfig(**SMALL, image_size=8, patch_size=4)
    ),
    "another kind of model (CLIPModel)": lambda: CLIPModel(CLIPConfig(**PARTS)),
}


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_of_another_kind_is_named(kind: str, tokenizer: BertTokenizer, tmp_path: Path) -> None:
    if "T5" in kind:
        saved("t5", tmp_path / "other")
    elif "Bert" in kind:
        OTHERS[kind](tiny_bert(tokenizer).config).save_pretrained(tmp_path / "other")
    else:
        OTHERS[kind]().save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    wanted = f"model {tmp_path / 'other'}: is {kind}; this needs a masked or a causal language model"
    with pytest.raises(LceError, match=f"^{re.escape(wanted)}$"):
        load_language_model(tmp_path / "other")


@pytest.mark.parametrize(
    ("type_", "architecture", "kind"),
    [
        ("bert", "BertForMaskedLM", "masked"), ("bert", "BertModel", "masked"), ("bert", None, "masked"),
        ("bert", "BertForPreTraining", "masked"), ("bert", "BertLMHeadModel", "causal"),
        ("xlm", "XLMWithLMHeadModel", "masked"), ("bart", "BartForCausalLM", "causal"),
        ("llama", "LlamaForCausalLM", "causal"), ("llama", None, "causal"), ("llama", "LlamaModel", "causal"),
        ("gpt2", "GPT2LMHeadModel", "causal"), ("gpt2", "GPT2Model", "causal"), ("opt", "OPTForCausalLM", "causal"),
    ],
)  # fmt: skip
def test_the_kind_is_told_from_the_configuration(type_: str, architecture: str | None, kind: str) -> None:
    config = AutoConfig.for_model(type_)
    config.architectures = architecture and [architecture]
    assert kind_of("a-masked-bert-or-llama", config) == kind


def test_a_model_that_looks_ahead_is_no_causal_one(tmp_path: Path, tokenizer: BertTokenizer) -> None:
    BertForMaskedLM(BertConfig(**SMALL, vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    change(tmp_path / "config.json", architectures=["BertLMHeadModel"])
    assert kind_named(tmp_path) == "causal"
    with pytest.raises(LceError, match="is no causal language model; what it predicts depends on later tokens"):
        load_language_model(tmp_path)


def test_a_sequence_to_sequence_model_that_fills_masks_is_not_refused_for_its_kind(tmp_path: Path) -> None:
    config = BartConfig()
    config.architectures = [BartForConditionalGeneration.__name__]
    assert kind_of(tmp_path, config) == "masked"


def test_what_is_no_masked_language_model_is_refused(tmp_path: Path, tokenizer: BertTokenizer) -> None:
    with pytest.raises(LceError, match="cannot be loaded"):
        load_language_model(tmp_path)
    classifier = BertForSequenceClassification(BertConfig(**SMALL, vocab_size=len(tokenizer)))
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    with pytest.raises(LceError, match="is a model for sequence classification"):
        load_language_model(tmp_path / "classifier")
    change(tmp_path / "classifier/config.json", architectures=None)
    with pytest.raises(LceError, match="is no masked language model; its checkpoint lacks cls"):
        load_language_model(tmp_path / "classifier")
    BertForMaskedLM(BertConfig(**SMALL, vocab_size=len(tokenizer))).save_pretrained(tmp_path / "maskless")
    tokenizer.save_pretrained(tmp_path / "maskless")
    change(tmp_path / "maskless/tokenizer_config.json", mask_token=None)
    with pytest.raises(LceError, match="its tokenizer has no mask token"):
        load_language_model(tmp_path / "maskless")
    BertForMaskedLM(BertConfig(**SMALL, vocab_size=50)).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    with pytest.raises(LceError, match="tokens, the model only 50"):
        load_language_model(tmp_path / "small")
