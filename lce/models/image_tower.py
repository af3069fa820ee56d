"""The image encoder of a CLIP, and its parts.

It is taken apart into what its attention heads write, so it has to be one whose embedding is the class token's state,
normalised and projected (Radford et al. 2021); others are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lce.foundations.errors import LceError

PARTS = ("embeddings", "pre_layrnorm", "encoder", "post_layernorm")
LAYER_PARTS = ("layer_norm1", "self_attn", "layer_norm2", "mlp")


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
