"""Tiny causal language models with random weights, of every type whose head lce computes apart, and a tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 32, "max_position_embeddings": 256,
}  # fmt: skip
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("cohere", "granite", "llama", "mistral", "olmo", "olmo2", "phi", "phi3", "qwen2", "smollm3", "stablelm",
         "starcoder2", "gpt_neox"), SMALL,
    ),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "qwen3"), SMALL | {"head_dim": 8}),
    "qwen2_moe": SMALL | EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": SMALL | EXPERTS | {"head_dim": 8},
    "mixtral": SMALL | {"num_local_experts": 2, "num_experts_per_tok": 1},
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "falcon": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    **dict.fromkeys(("gpt2", "gpt_bigcode"), GPT2),
    "gptj": GPT2 | {"rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 256,
    },
    "mpt": {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 256},
    "opt": {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 16,
        "max_position_embeddings": 256,
    },
}  # fmt: skip
NAMED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gpt2", "gpt_neox", "opt", "bloom")
"""The types that users ask for most."""

TEXT = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8") + " he she nurse He She said that would"


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs with a leading space, as decoders have them; a start token, and no padding token."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator([TEXT, " he she" * 100], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", model_max_length=256)


def tiny(kind: str, seed: int = 0) -> PreTrainedModel:
    """A model with weights large enough that positions and words matter.

    Its vocabulary is a little larger than the tokenizer's, to which transformers adds tokens for some types.
    """
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {kind}")
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer()) + 8, bos_token_id=0, eos_token_id=1, pad_token_id=1, **CONFIGS[kind]
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval()


def saved(kind: str, folder: Path, seed: int = 0) -> Path:
    """The folder of such a model with its tokenizer."""
    tiny(kind, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
