"""Trainings of tiny autoencoders: a second each."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import causal_models
import torch
import yaml
from conftest import BASE, own_sentences, tiny_bert
from safetensors.torch import load_file
from transformers import BertTokenizer

from lce.config import CorpusSettings, DataSettings
from lce.models.autoencoder_files import WEIGHTS
from lce.training.autoencoder.settings import AutoencoderOptimisation, AutoencoderSettings
from lce.training.autoencoder.train import train_autoencoder

PROCESSOR = {"accelerator": "cpu", "log_every_n_steps": 5}
STEPS = 60


def saved(folder: Path) -> Path:
    """A folder with two models, llama and bert, and a text."""
    tokenizer = BertTokenizer.from_pretrained(BASE)
    tiny_bert(tokenizer).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    causal_models.saved("llama", folder / "llama")
    (folder / "text.txt").write_text("\n".join(own_sentences()), encoding="utf-8")
    return folder


def settings(
    made: Path, experiment: Path, model: str = "llama", site: str = "layers.0", **options: Any
) -> AutoencoderSettings:
    """Settings for one of the models in ``made``; ``options`` are those of the autoencoder or of its training."""
    train: dict[str, Any] = {
        "steps": STEPS, "batch_size": 64, "chunk": 512, "max_length": 32, "tokens": 3000, "learning_rate": 5e-3,
        "checkpoint_every": 20, "validate_every": 20, "dead_after": 10,
    }  # fmt: skip
    own = {key: options.pop(key) for key in list(options) if key in AutoencoderSettings.__dataclass_fields__}
    corpus = CorpusSettings(source="files", files=[str(made / "text.txt")])
    data = DataSettings(folder=str(made / "data"), corpus=corpus, evaluation_fraction=0.2)
    about: dict[str, Any] = {"model": str(made / model), "site": site, "experiment": str(experiment), "k": 4} | own
    return AutoencoderSettings(data=data, train=AutoencoderOptimisation(**(train | options)), **about)


def trained(made: Path, experiment: Path, **options: Any) -> Path:
    return train_autoencoder(settings(made, experiment, **options), PROCESSOR)


def configuration(asked: AutoencoderSettings, path: Path) -> list[str]:
    """The words of a command that trains it, with the settings in the file ``path``."""
    content = asdict(asked) | {"trainer": PROCESSOR}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return ["train-sae", "--config", str(path)]


def weights(autoencoder: Path) -> dict[str, torch.Tensor]:
    return load_file(autoencoder / WEIGHTS)


def assert_same(one: Path, other: Path) -> None:
    """Bit for bit."""
    tensors = weights(other)
    assert {name: torch.equal(tensor, tensors[name]) for name, tensor in weights(one).items()} == dict.fromkeys(
        tensors, True
    )
