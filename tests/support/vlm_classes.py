"""Tiny models of the classes of vision-language models that people use, with random weights.

Their own processors need torchvision, so each comes with one made here, that writes as many visual tokens and values of
pixels as the class reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import causal_models
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from lce.models.image_text import ImageText

IMAGE = "<image>"
SIDE = 24
"""Width and height of what the models read of a picture [pixels]."""
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP = VISION | {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 8, "projection_dim": 16}
SIGLIP = VISION | {"image_size": SIDE, "patch_size": 4}
MROPE = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "llava": {"vision_config": CLIP, "vision_feature_layer": -1, "image_seq_length": 9},
    "llava_next": {"vision_config": CLIP, "vision_feature_layer": -1, "image_grid_pinpoints": [[SIDE, SIDE]]},
    "qwen2_vl": {
        "vision_config": {
            "depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "mlp_ratio": 2,
        },
    },
    "qwen2_5_vl": {
        "vision_config": {
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 8,
            "fullatt_block_indexes": [1],
        },
    },
    "internvl": {"vision_config": SIGLIP | {"image_size": [SIDE, SIDE], "patch_size": [4, 4]}, "image_seq_length": 9},
    "smolvlm": {"vision_config": SIGLIP, "scale_factor": 2},
    "idefics3": {"vision_config": SIGLIP, "scale_factor": 2},
}  # fmt: skip
TEXTS = {"llava_next": "mistral", "qwen2_vl": "qwen2_vl_text", "qwen2_5_vl": "qwen2_5_vl_text", "internvl": "qwen2"}
"""The decoders of the classes that have none of Llama."""
GRIDS = {**dict.fromkeys(CONFIGS, (3, 3)), "qwen2_vl": (3, 2), "qwen2_5_vl": (3, 2)}
"""How the visual tokens of a picture lie in it."""
TOKENS = {kind: rows * columns for kind, (rows, columns) in GRIDS.items()} | {"llava_next": 9 + 12}
"""Visual tokens of a picture; LLaVA-1.6 sees it twice, and ends the rows of the second view with a token of its own."""


@dataclass
class Processor:
    """What a model of one ``kind`` reads of pictures and prompts, padded on the tokenizer's side."""

    tokenizer: Any
    kind: str
    image_token: str = IMAGE

    def __call__(self, images: Sequence[Sequence[Image.Image]], text: Sequence[str], **_: Any) -> dict[str, Tensor]:
        whole = [prompt.replace(IMAGE, IMAGE * TOKENS[self.kind]) for prompt in text]
        tokens = self.tokenizer(whole, padding=True, return_tensors="pt")
        found = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        pictures = torch.stack([_pixels(picture) for [picture] in images])
        count = len(pictures)
        if self.kind.startswith("qwen"):
            rows, columns = (2 * side for side in GRIDS[self.kind])
            small = pictures[:, :, : 4 * rows, : 4 * columns].unfold(2, 4, 4).unfold(3, 4, 4)
            patches = small.permute(0, 2, 3, 1, 4, 5).reshape(count * rows * columns, 3, 1, 16)
            found["pixel_values"] = patches.expand(-1, -1, 2, -1).reshape(count * rows * columns, 96)
            found["image_grid_thw"] = torch.tensor([[1, rows, columns]] * count)
            image = self.tokenizer.convert_tokens_to_ids(IMAGE)
            found["mm_token_type_ids"] = (tokens["input_ids"] == image).int()
        elif self.kind == "llava_next":
            found["pixel_values"] = pictures[:, None].expand(-1, 2, -1, -1, -1)
            found["image_sizes"] = torch.tensor([[SIDE, SIDE]] * count)
        else:
            found["pixel_values"] = pictures[:, None] if self.kind in ("smolvlm", "idefics3") else pictures
        return found


def _pixels(picture: Image.Image) -> Tensor:
    values = np.asarray(picture.convert("RGB").resize((SIDE, SIDE)), dtype=np.float32) / 255 - 0.5
    return torch.from_numpy(values).permute(2, 0, 1)


def tiny(kind: str, seed: int = 0) -> ImageText:
    """A model with weights large enough that words and pictures matter."""
    tokenizer = deepcopy(causal_models.tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokenizer.pad_token = tokenizer.eos_token
    image = tokenizer.convert_tokens_to_ids(IMAGE)
    text = {
        "model_type": TEXTS.get(kind, "llama"), "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 1,
        "pad_token_id": 1, **causal_models.SMALL,
    }  # fmt: skip
    if kind.startswith("qwen"):
        text["rope_scaling"] = MROPE
    config = CONFIG_MAPPING[kind](text_config=text, **CONFIGS[kind])
    for name in ("image_token_id", "image_token_index"):
        if hasattr(config, name):
            setattr(config, name, image)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    model.generation_config.pad_token_id = 1
    return ImageText(kind, Path(kind), model, Processor(tokenizer, kind))
