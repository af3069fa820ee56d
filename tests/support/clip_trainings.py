"""Trainings of tiny CLIPs on pictures drawn here: a second each."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import clips
import torch
import yaml
from safetensors.torch import load_file

from lce.training.clip.settings import ClipOptimisation, ClipSettings
from lce.training.clip.train import pretrain_clip

PROCESSOR = {"accelerator": "cpu", "log_every_n_steps": 5}
STEPS = 12
SHARES = {"circle": 0.9, "square": 0.2}


def settings(pictures: Path, experiment: Path, **options: Any) -> ClipSettings:
    """``options`` are those of the CLIP or of its training."""
    train: dict[str, Any] = {
        "steps": STEPS, "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2, "validate_every": 6,
        "checkpoint_every": 4,
    }  # fmt: skip
    own = {key: options.pop(key) for key in list(options) if key in ClipSettings.__dataclass_fields__}
    about: dict[str, Any] = {"shares": SHARES, "pictures": str(pictures), "experiment": str(experiment)} | own
    return clips.settings(train=ClipOptimisation(**(train | options)), **about)


def trained(pictures: Path, experiment: Path, **options: Any) -> Path:
    return pretrain_clip(settings(pictures, experiment, **options), PROCESSOR)


def configuration(asked: ClipSettings, path: Path) -> list[str]:
    """The words of a command that trains it, with the settings in the file ``path``."""
    path.write_text(yaml.safe_dump(asdict(asked) | {"trainer": PROCESSOR}), encoding="utf-8")
    return ["pretrain-clip", "--config", str(path)]


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit."""
    tensors = weights(other)
    assert {name: torch.equal(tensor, tensors[name]) for name, tensor in weights(one).items()} == dict.fromkeys(
        tensors, True
    )
