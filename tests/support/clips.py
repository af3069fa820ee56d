"""A tiny CLIP with random weights, as `lce pretrain-clip` makes one, and one whose concept a single head carries."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from lce.data.pictures.attributes import load_attribute
from lce.localize.heads import concept_direction
from lce.models.clip import Clip, load_clip
from lce.models.image_terms import Reading
from lce.training.clip.settings import ClipSettings, TowerSettings
from lce.training.clip.train import make_model, make_tokenizer, save

LAYERS, HEADS, WIDTH, EMBEDDING = 3, 4, 24, 16
HEAD_WIDTH = WIDTH // HEADS
NAMES = ("circle", "square", "triangle", "old woman", "girl", "boy", "dark", "red", "photo", "green", "thing")
TEMPLATES = ["a {}", "a drawing of a {}"]
PLANTED = 2, 1
"""Layer and head that carry the concept in `planted`, by default."""
COLOUR = 5
"""The entry of the states that holds how much redder than blue a patch is, in `planted`."""


def settings(**options: Any) -> ClipSettings:
    """Settings of a tiny CLIP that sees 24 × 24 pixels, as nine patches."""
    about: dict[str, Any] = {
        "image": TowerSettings(LAYERS, WIDTH, HEADS), "text": TowerSettings(2, 16, 2), "size": 24, "patch": 8,
        "embedding": EMBEDDING, "vocabulary": 700,
    }  # fmt: skip
    return ClipSettings(**(about | options))


@cache
def tokenizer() -> CLIPTokenizer:
    return make_tokenizer([{"name": name} for name in NAMES], settings().vocabulary)


def tiny(seed: int = 0, **options: Any) -> CLIPModel:
    """A model with random weights, large enough for what is in a picture or a text to reach its embedding."""
    return lively(make_model(settings(**options), tokenizer()).eval(), seed)


@torch.no_grad()
def lively(model: CLIPModel, seed: int = 0, gain: float = 1.0) -> CLIPModel:
    """The ``model`` with weights of a size that keeps the size of states, and normalisations that do something."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=random)
        if parameter.ndim > 1:
            parameter.copy_(noise * gain / parameter[0].numel() ** 0.5)
        elif "norm" in name and name.endswith("weight"):
            parameter.copy_(1 + 0.2 * noise)
        elif parameter.ndim == 1:
            parameter.copy_(0.2 * noise)
    return model.requires_grad_(False)


def saved(folder: Path, model: CLIPModel | None = None, dtype: torch.dtype = torch.float32) -> Path:
    """The ``model``, by default `tiny`, in a ``folder`` with its tokenizer and image processor, in this type."""
    model = tiny() if model is None else model
    save(deepcopy(model), tokenizer(), settings(), folder)
    if dtype != torch.float16:
        deepcopy(model).to(dtype).save_pretrained(folder)
    return folder


def loaded(folder: Path, model: CLIPModel | None = None, dtype: torch.dtype = torch.float32) -> Clip:
    return load_clip(saved(folder, model, dtype), "cpu")


def random_pixels(n: int, size: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def embeddings(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """The embeddings of pictures, of length 1, by plain transformers."""
    return F.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=1)


@torch.no_grad()
def planted(folder: Path, place: tuple[int, int] = PLANTED, strength: float = 8.0) -> Clip:
    """A CLIP in which the head at ``place``, (layer, head), carries gender: it tells red pictures from blue ones.

    Its value is the entry `COLOUR` of the states, and it writes along the direction that the embedding reads the
    concept from, and nothing else. The other heads and the MLPs do what random ones do.
    """
    model = lively(make_model(settings(), tokenizer()).eval(), gain=0.5)
    known, words = tokenizer().get_vocab(), model.text_model.embeddings.token_embedding.weight
    for word, side in {"woman": 4, "girl": 4, "man": -4, "boy": -4}.items():
        words[known[f"{word}</w>"]] += side * F.normalize(words[0], dim=0)
    clip = loaded(folder / "random", model)
    direction = concept_direction(clip, load_attribute("gender"), TEMPLATES)
    filters = model.vision_model.embeddings.patch_embedding.weight
    filters[:] = filters.mean(1, keepdim=True)  # they see no colour
    filters[COLOUR] = torch.tensor([1.0, 0.0, -1.0])[:, None, None] / filters[0, 0].numel()
    layer, head = place
    columns = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
    block = model.vision_model.encoder.layers[layer].self_attn
    block.v_proj.weight[columns], block.v_proj.bias[columns], block.out_proj.weight[:, columns] = 0.0, 0.0, 0.0
    block.v_proj.weight[columns.start, COLOUR] = 1.0
    read = Reading(clip.tower).map.T @ direction
    block.out_proj.weight[:, columns.start] = strength * F.normalize(read, dim=0)
    return loaded(folder / "planted", model)
