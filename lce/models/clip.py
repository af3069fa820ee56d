"""CLIP models: opening one, embedding texts and pictures, and the parts of its image encoder.

The image encoder is taken apart into what its attention heads write, so it has to be one whose embedding is the class
token's state, normalised and projected (Radford et al. 2021); others are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lce.foundations.errors import LceError
from lce.models.kinds import read_config, refusing
from lce.models.loading import load_tokenizer, load_weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

PARTS = ("embeddings", "pre_layrnorm", "encoder", "post_layernorm")
LAYER_PARTS = ("layer_norm1", "self_attn", "layer_norm2", "mlp")
TEXTS = 256
"""Texts that are embedded together."""


@dataclass(frozen=True)
class ImageTower:
    """The image encoder of a CLIP.

    Attributes:
        prefix: what the names of its parameters begin with in the model.
        heads: attention heads of a layer.
    """

    vision: Any
    projection: nn.Linear
    prefix: str
    heads: int

    @classmethod
    def of(cls, model: nn.Module, name: str = "") -> ImageTower:
        """The image encoder of ``model``.

        Raises:
            LceError: it is not built like that of CLIP.
        """
        vision, projection = getattr(model, "vision_model", None), getattr(model, "visual_projection", None)
        title = f"model {name or type(model).__name__}"
        if vision is not None and hasattr(vision, "head"):
            raise LceError(
                f"{title}: its image embedding comes from a pooling attention, which mixes what the heads write; the "
                "decomposition needs a class token that is normalised and projected, as in CLIP"
            )
        vision = getattr(vision, "vision_model", vision)
        layers = getattr(getattr(vision, "encoder", None), "layers", None)
        has_parts = all(hasattr(vision, part) for part in PARTS)
        has_layers = layers is not None and all(hasattr(layers[0], part) for part in LAYER_PARTS)
        if vision is None or layers is None or not has_parts or not has_layers or not isinstance(projection, nn.Linear):
            raise LceError(f"{title}: its image encoder is not built like that of CLIP, with a class token")
        prefix = next(path for path, module in model.named_modules() if module is vision)
        return cls(vision, projection, prefix, int(layers[0].self_attn.num_heads))

    @property
    def layers(self) -> Any:
        return self.vision.encoder.layers

    @property
    def width(self) -> int:
        return int(self.projection.in_features)

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def output_name(self, layer: int) -> str:
        """The name of a layer's output projection W_O in the model, without .weight or .bias."""
        return f"{self.prefix}.encoder.layers.{layer}.self_attn.out_proj"

    def output(self, layer: int) -> nn.Linear:
        """W_O and b_O of a layer."""
        found: nn.Linear = self.layers[layer].self_attn.out_proj
        return found

    def embedded(self, state: Tensor) -> Tensor:
        """The embedding (n, D), of length 1, from the class token's last state (n, d)."""
        return F.normalize(self.projection(self.vision.post_layernorm(state)), dim=1)


@dataclass(frozen=True)
class Clip:
    """A CLIP with what prepares pictures and texts for it."""

    name: str
    folder: Path
    model: Any
    tokenizer: PreTrainedTokenizerBase
    processor: BaseImageProcessor
    tower: ImageTower

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def scale(self) -> float:
        """What a cosine is multiplied by before the softmax over classes."""
        return float(self.model.logit_scale.detach().exp())

    @torch.inference_mode()
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of ``texts``, of length 1: (n, D)."""
        found = []
        longest = self.model.config.text_config.max_position_embeddings
        for start in range(0, len(texts), TEXTS):
            chosen = list(texts[start : start + TEXTS])
            encoded = self.tokenizer(chosen, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            features = self.model.get_text_features(
                input_ids=encoded["input_ids"].to(self.device),
                attention_mask=encoded["attention_mask"].to(self.device),
            )
            found.append(F.normalize(_pooled(features).float(), dim=1))
        return torch.cat(found)

    def pixels(self, pictures: Sequence[Image]) -> Tensor:
        """RGB ``pictures`` as the model takes them: (n, 3, height, width), on the processor."""
        prepared: Tensor = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return prepared


def _pooled(features: Any) -> Tensor:
    """The embeddings among what a model gives: the tensor itself in older versions of transformers."""
    pooled: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return pooled


def load_clip(name: str | Path, device: str = "auto", trust_remote_code: bool = False) -> Clip:
    """A CLIP in float32, from a folder or by its name on the hub.

    Args:
        device: where it computes: cpu, cuda, …; auto takes the GPU if there is one.

    Raises:
        LceError: nothing of this name can be loaded, or it is no CLIP whose image embedding is taken apart.
    """
    from transformers import AutoImageProcessor, AutoModel

    folder, config = read_config(name, trust_remote_code)
    if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
        raise LceError(f"model {name}: is no CLIP; a model with an image and a text encoder is needed")
    with refusing(f"model {name}", folder, trust_remote_code):
        processor = AutoImageProcessor.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    tokenizer = load_tokenizer(name, folder, None, trust_remote_code)
    model, missing = load_weights(
        AutoModel, name, folder, config, dtype=torch.float32, trust_remote_code=trust_remote_code
    )
    if missing:
        raise LceError(f"model {name}: is no CLIP; its checkpoint lacks {', '.join(missing[:3])}")
    tower = ImageTower.of(model, str(name))
    model.eval().requires_grad_(False)
    with refusing(f"model {name}: device {device}"):
        model.to(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    found = Clip(str(name), folder, model, tokenizer, processor, tower)
    with refusing(f"model {name}"):
        found.text_embeddings(["a person"])
    return found
