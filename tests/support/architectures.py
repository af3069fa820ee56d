"""Tiny checkpoints with random weights: an encoder, three decoders, and an encoder-decoder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

DECODER = {
    "vocab_size": 96, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
MADE = {
    "bert": lambda: BertForMaskedLM(
        BertConfig(
            vocab_size=96, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=32,
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=16, n_layer=2, n_head=2, n_positions=32)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**DECODER)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**DECODER, tie_word_embeddings=True)),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=96, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
    ),
}  # fmt: skip


def made(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(seed)
    return MADE[kind]().to(dtype).eval()


def saved(
    kind: str, folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, max_shard_size: str = "5GB"
) -> PreTrainedModel:
    model = made(kind, seed, dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    """Of one fixed input."""
    inputs = {"input_ids": torch.arange(3, 15).view(2, 6)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.arange(20, 28).view(2, 4)
    with torch.no_grad():
        result: torch.Tensor = model(**inputs).logits
    return result
