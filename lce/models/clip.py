"""CLIP models: opening one, and embedding texts and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lce.foundations.errors import LceError
from lce.models.image_states import ImageStates
from lce.models.image_tower import ImageTower
from lce.models.kinds import read_config, refusing
from lce.models.loading import load_tokenizer, load_weights

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

TEXTS = 256
"""Texts that are embedded together."""


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

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
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
        _check_tower(found)
    return found


@torch.inference_mode()
def _check_tower(clip: Clip) -> None:
    """Raises LceError unless lce computes the image embedding as the model does."""
    grey = Image.new("RGB", (64, 48), (90, 120, 150))
    pixels = clip.pixels([grey]).to(clip.device)
    wanted = F.normalize(_pooled(clip.model.get_image_features(pixel_values=pixels)), dim=1)
    if not torch.allclose(ImageStates.of(clip.tower, pixels).embedding(), wanted, atol=1e-3):
        raise LceError(f"model {clip.name}: its image encoder computes in another way than that of CLIP")
