"""Everything that the training of an autoencoder can be told, with defaults; as light to import as `lce.config`."""

from dataclasses import dataclass, field
from typing import Literal

from lce import checks
from lce.config import DataSettings


@dataclass
class AutoencoderOptimisation:
    """How an autoencoder is trained."""

    steps: int = 1200
    """Optimiser steps."""
    batch_size: int = 1024
    """States per step."""
    learning_rate: float = 1e-3
    """Highest learning rate of Adam; it rises over the first hundredth of the steps and falls over the last fifth."""
    l1: float = 2.0
    """Weight λ of the L1 norm of the activations in the loss (standard)."""
    dead_after: int = 100
    """Steps without an activation after which a feature counts as dead, and is trained on what the others leave over
    (topk, batchtopk)."""
    tokens: int | None = 300_000
    """States of so many tokens of the text at most; once they are used up, they come again in another order."""
    max_length: int = 64
    """Longer sentences are cut [tokens]."""
    chunk: int = 32_768
    """States that are computed and shuffled together."""
    memory: float = 2.0
    """States are kept in memory if all of them fit so much of it, else on the disk beside the checkpoints [GB]."""
    validate_every: int = 200
    """Steps between looks at held-out states."""
    checkpoint_every: int = 200
    """Steps between checkpoints, from which a killed training resumes."""


@dataclass
class AutoencoderSettings:
    """One autoencoder: of which model's states, how large, and how trained."""

    model: str = "data/downloads/SmolLM2-135M-Instruct"
    """Model whose states it is for: a folder, or a name on the Hugging Face hub."""
    site: str = "layers.15"
    """Whose states: layers.N is what the layer N puts out, counted from 0; or a module's path in the model; or a hook
    of TransformerLens, such as blocks.8.hook_resid_pre."""
    architecture: Literal["batchtopk", "topk", "standard"] = "batchtopk"
    """batchtopk: of a batch of n states, the n · k largest activations are kept, and in use, those beyond a threshold,
    so that a feature can be computed without the others (it is saved as a jumprelu one); topk: of each state, the k
    largest; standard: ReLU, with an L1 penalty."""
    expansion: float = 8
    """Number of features, as a multiple of the width of a state."""
    k: int = 32
    """Active features of a state, on average for batchtopk (topk, batchtopk)."""
    output: str | None = None
    """Folder to write the autoencoder to, in SAELens's format; by default inside the experiment."""
    experiment: str = "runs/autoencoder"
    """Folder for checkpoints and logs."""
    half: bool = False
    """Write its numbers in half precision."""
    trust_remote_code: bool = False
    """Run code that a model's folder brings along; only for models you trust."""
    seed: int = 0
    """Seed of the order of texts and states, and of the first weights."""
    data: DataSettings = field(default_factory=DataSettings)
    """The text whose states are trained on."""
    train: AutoencoderOptimisation = field(default_factory=AutoencoderOptimisation)
    """How it is trained."""


def check_autoencoder(settings: AutoencoderSettings) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the model and the text."""
    checks.check_data(settings.data)
    train = settings.train
    for name in ("steps", "batch_size", "dead_after", "tokens", "validate_every", "checkpoint_every"):
        checks.check_positive(getattr(train, name), f"train.{name}")
    for name in ("learning_rate", "l1", "memory"):
        checks.check_not_negative(getattr(train, name), f"train.{name}")
    checks.check_length(train.max_length, "train.max_length")
    least = train.batch_size
    checks.expect(train.chunk >= least, "train.chunk", f"at least train.batch_size ({least})", train.chunk)
    checks.expect(0 < settings.expansion < 1e4, "expansion", "a positive number", settings.expansion)
    checks.check_positive(settings.k, "k", "a positive number of features")
    checks.check_not_negative(settings.seed, "seed")
