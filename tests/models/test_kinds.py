"""Models that are no masked language models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from architectures import DECODER, saved
from conftest import tiny_bert
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from lce.foundations.errors import LceError
from lce.models.kinds import check_is_masked
from lce.models.loading import load_masked_lm

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PARTS = {"text_config": SMALL, "vision_config": SMALL | {"image_size": 8, "patch_size": 4}, "projection_dim": 8}
OTHERS = {
    "a causal language model (LlamaForCausalLM)": lambda: LlamaForCausalLM(LlamaConfig(**DECODER)),
    "a causal language model (BertLMHeadModel)": lambda config: BertLMHeadModel(config),
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
    wanted = f"model {tmp_path / 'other'}: is {kind}; this needs a masked language model"
    with pytest.raises(LceError, match=f"^{re.escape(wanted)}$"):
        load_masked_lm(tmp_path / "other")
    if "Llama" in kind:
        change(tmp_path / "other/config.json", architectures=None)
        with pytest.raises(LceError, match=f"^{re.escape(wanted)}$"):
            load_masked_lm(tmp_path / "other")


def test_a_sequence_to_sequence_model_that_fills_masks_is_not_refused_for_its_kind(tmp_path: Path) -> None:
    config = BartConfig()
    config.architectures = [BartForConditionalGeneration.__name__]
    check_is_masked(tmp_path, config)


def test_what_is_no_masked_language_model_is_refused(tmp_path: Path, tokenizer: BertTokenizer) -> None:
    with pytest.raises(LceError, match="cannot be loaded"):
        load_masked_lm(tmp_path)
    classifier = BertForSequenceClassification(BertConfig(**SMALL, vocab_size=len(tokenizer)))
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    with pytest.raises(LceError, match="is a model for sequence classification"):
        load_masked_lm(tmp_path / "classifier")
    change(tmp_path / "classifier/config.json", architectures=None)
    with pytest.raises(LceError, match="is no masked language model; its checkpoint lacks cls"):
        load_masked_lm(tmp_path / "classifier")
    BertForMaskedLM(BertConfig(**SMALL, vocab_size=len(tokenizer))).save_pretrained(tmp_path / "maskless")
    tokenizer.save_pretrained(tmp_path / "maskless")
    change(tmp_path / "maskless/tokenizer_config.json", mask_token=None)
    with pytest.raises(LceError, match="its tokenizer has no mask token"):
        load_masked_lm(tmp_path / "maskless")
    BertForMaskedLM(BertConfig(**SMALL, vocab_size=50)).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    with pytest.raises(LceError, match="tokens, the model only 50"):
        load_masked_lm(tmp_path / "small")
