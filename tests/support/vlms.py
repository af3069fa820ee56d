"""Tiny vision-language models with random weights: a tiny CLIP's image encoder and a tiny decoder."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import causal_models
import clips
import torch
import yaml
from conftest import ROOT

from lce.models.assembled import MINI, PARTS, PROJECTOR, assemble, put_together, save
from lce.models.converted import SMOLLM2, provide
from lce.models.image_text import ImageText, load_image_text
from lce.training.projector.settings import ProjectorOptimisation, ProjectorSettings
from lce.training.projector.train import pretrain_projector

PROCESSOR = {"accelerator": "cpu", "log_every_n_steps": 5}
STEPS = 12
PATCHES = 9
"""Visual tokens of a picture."""
LAYERS = 2


def decoder(folder: Path, seed: int = 0) -> Path:
    """A tiny Llama that knows the tokens of ChatML."""
    tokenizer = deepcopy(causal_models.tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.pad_token = tokenizer.eos_token
    causal_models.tiny("llama", seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def parts(folder: Path) -> tuple[str, str]:
    """The folders of a tiny CLIP and of a tiny decoder, made once."""
    if not (folder / "decoder").exists():
        clips.saved(folder / "clip")
        decoder(folder / "decoder")
    return str(folder / "clip"), str(folder / "decoder")


def saved(folder: Path) -> Path:
    """The folder of a whole model whose projector is lively."""
    model, processor, _ = assemble(*parts(folder))
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    save(model, processor, folder / "model")
    return folder / "model"


def loaded(folder: Path) -> ImageText:
    return load_image_text(saved(folder), "cpu")


def settings(folder: Path, pictures: Path, experiment: Path, **options: Any) -> ProjectorSettings:
    """``options`` are those of the projector or of its training."""
    train: dict[str, Any] = {
        "steps": STEPS, "batch_size": 6, "learning_rate": 1e-2, "warmup_steps": 2, "validate_every": 6,
        "checkpoint_every": 4,
    }  # fmt: skip
    own = {key: options.pop(key) for key in list(options) if key in ProjectorSettings.__dataclass_fields__}
    clip, speaking = parts(folder)
    about: dict[str, Any] = {
        "clip": clip, "decoder": speaking, "shares": {"circle": 0.9, "square": 0.2}, "pictures": str(pictures),
        "experiment": str(experiment),
    }  # fmt: skip
    return ProjectorSettings(train=ProjectorOptimisation(**(train | options)), **(about | own))


def trained(folder: Path, pictures: Path, experiment: Path, **options: Any) -> Path:
    return pretrain_projector(settings(folder, pictures, experiment, **options), PROCESSOR)


def configuration(asked: ProjectorSettings, path: Path) -> list[str]:
    """The words of a command that trains it, with the settings in the file ``path``."""
    path.write_text(yaml.safe_dump(asdict(asked) | {"trainer": PROCESSOR}), encoding="utf-8")
    return ["pretrain-projector", "--config", str(path)]


def shipped_mini(downloads: Path, folder: Path) -> ImageText:
    """The model whose projector is shipped, from real parts, in memory; what it needs goes to ``folder``."""
    provide(downloads / SMOLLM2, downloads)
    shipped = ROOT / "checkpoints" / MINI
    about = json.loads((shipped / PARTS).read_text(encoding="utf-8"))
    (folder / PROJECTOR).write_bytes((shipped / PROJECTOR).read_bytes())
    (folder / PARTS).write_text(json.dumps(about | {"decoder": str(downloads / SMOLLM2)}), encoding="utf-8")
    model, processor = put_together(folder)
    return ImageText(MINI, folder, model.eval().requires_grad_(False), processor)
