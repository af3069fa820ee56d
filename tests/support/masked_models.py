"""Tiny masked language models with random weights, of every type that transformers has and that can be made small."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForMaskedLM, PreTrainedModel

VOCABULARY = 50
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
XLM = {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "pad_index": 0, "max_position_embeddings": 64}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 8}
SEQUENCES = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            *("bert", "camembert", "data2vec-text", "ernie", "esmc", "eurobert", "gte", "ibert", "jina_embeddings_v3"),
            *("layoutlm", "megatron-bert", "modernbert", "mpnet", "mra", "nomic_bert", "nystromformer", "roberta"),
            *("roberta-prelayernorm", "roc_bert", "roformer", "tapas", "ultrabert", "xlm-roberta", "xlm-roberta-xl"),
            "yoso",
        ),
        SMALL,
    ),
    "albert": SMALL | {"embedding_size": 8},
    **dict.fromkeys(("bart", "mbart", "mvp"), SEQUENCES),
    "big_bird": SMALL | {"block_size": 2, "num_random_blocks": 1},
    "convbert": SMALL | {"embedding_size": 8},
    **dict.fromkeys(("deberta", "deberta-v2"), SMALL | RELATIVE),
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "electra": SMALL | {"embedding_size": 8},
    "esm": SMALL | {"mask_token_id": 1},
    **dict.fromkeys(("flaubert", "xlm"), XLM),
    "fnet": {key: value for key, value in SMALL.items() if key != "num_attention_heads"},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 32},
    "longformer": SMALL | {"attention_window": 4},
    "luke": SMALL | {"entity_vocab_size": 10, "entity_emb_size": 8},
    "mobilebert": SMALL | {"embedding_size": 8, "intra_bottleneck_size": 8, "num_feedforward_networks": 1},
    "perceiver": {
        "d_model": 16, "d_latents": 16, "num_latents": 4, "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 2, "max_position_embeddings": 64,
    },
    "reformer": {
        "hidden_size": 16, "attention_head_size": 8, "num_attention_heads": 2, "feed_forward_size": 32,
        "is_decoder": False, "axial_pos_embds": False, "attn_layers": ["local"] * 2, "local_attn_chunk_length": 2,
    },
    "rembert": SMALL | {"input_embedding_size": 8, "output_embedding_size": 8},
    "squeezebert": SMALL | {"embedding_size": 16} | {f"{part}_groups": 2 for part in ("q", "k", "v", "intermediate")},
    "xmod": SMALL | {"languages": ("en_XX",), "default_language": "en_XX"},
}  # fmt: skip


def tiny(kind: str) -> PreTrainedModel:
    """A model with weights large enough that positions and words matter."""
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {kind}")
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, pad_token_id=0, **CONFIGS[kind])
    model: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval()
