"""One fit: a LightningModule trained for a fixed number of steps, logged, and resumed where it was killed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn

from lce.data.encoding import EncodedTexts
from lce.data.module import MaskedTextModule
from lce.errors import LceError
from lce.models import MaskedLanguageModel, compile_layers, longest_input

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class OptimisationSettings:
    """How a model is trained."""

    steps: int = 13881
    """Optimiser steps of one round."""
    batch_size: int = 64
    """Sentences per step, over all devices, and over the parts that trainer.accumulate_grad_batches makes of it."""
    learning_rate: float = 1e-5
    """Highest learning rate; it falls linearly to zero."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW, on matrices only."""
    freeze: list[str] = field(default_factory=list)
    """Regular expressions; parameters whose name matches one are not trained."""
    term_probability: float = 0.3
    """Probability of masking a token of a specification term."""
    mask_probability: float = 0.15
    """Average probability of masking a token."""
    max_length: int = 128
    """Longer sentences are cut [tokens]."""
    compile: bool = False
    """Compile the encoder's layers (torch.compile): pays on a GPU in long trainings, not on a processor."""
    workers: int = 0
    """Processes that prepare batches; 0 prepares them in the main process."""
    validate_every: int | None = None
    """Steps between evaluations on the held-out sentences, beside the one at the end; none by default."""
    checkpoint_every: int = 1000
    """Steps between checkpoints within a round, from which a killed run goes on."""


def identity_of(settings: OptimisationSettings) -> dict[str, Any]:
    """The settings on which results depend: all but how and when batches and checkpoints are made."""
    free = ("workers", "validate_every", "checkpoint_every")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def numerics(trainer_options: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's options on which results depend: all but where and how it runs."""
    free = ("accelerator", "strategy", "devices", "num_nodes", "log_every_n_steps")
    return {key: str(value) for key, value in trainer_options.items() if key not in free}


class RoundProgressBar(TQDMProgressBar):
    """The usual bar, headed by what is being trained."""

    def __init__(self, title: str) -> None:
        super().__init__(refresh_rate=5)
        self.title = title

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(self.title)


class WholeParameters(Callback):
    """Keeps what was learned in one piece, where the strategy (FSDP) leaves each process only its share of it."""

    def __init__(self) -> None:
        self.learned: dict[str, Tensor] = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.strategy, FSDPStrategy):
            with cast(MaskedLanguageModel, pl_module).whole_parameters() as parameters:
                self.learned = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}

    def put_back_(self, model: PreTrainedModel) -> None:
        """Give ``model`` ordinary parameters again, with the values that it learned."""
        for name, values in self.learned.items():
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, nn.Parameter(values.clone()))
        if self.learned:
            model.tie_weights()


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: tuple[EncodedTexts, EncodedTexts],
    settings: OptimisationSettings,
    seed: int,
    trainer_options: dict[str, Any],
    folder: Path,
    title: str,
    callbacks: list[Callback] | None = None,
) -> tuple[Trainer, float]:
    """Train ``model`` in place on the first ``texts``; return the trainer and the perplexity on the second ones.

    TensorBoard logs and checkpoints go to ``folder``; if it holds a checkpoint, training goes on from there
    and ends with the same weights as if it had never stopped.
    """
    _check(settings, trainer_options, model)
    model.train()
    if settings.compile:
        compile_layers(model)
    module = MaskedLanguageModel(
        model,
        settings.learning_rate,
        settings.steps,
        seed,
        settings.warmup_steps,
        settings.weight_decay,
        settings.freeze,
    )
    data = MaskedTextModule(
        *texts,
        tokenizer=tokenizer,
        batch_size=settings.batch_size,
        seed=seed,
        steps=settings.steps,
        term_probability=settings.term_probability,
        mask_probability=settings.mask_probability,
        workers=settings.workers,
    )
    accumulated = trainer_options.get("accumulate_grad_batches") or 1
    checkpoint = ModelCheckpoint(
        dirpath=folder / "checkpoints",
        filename="last",
        every_n_train_steps=settings.checkpoint_every,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    whole = WholeParameters()
    trainer = Trainer(
        **trainer_options,
        max_steps=settings.steps,
        val_check_interval=(settings.validate_every or settings.steps + 1) * accumulated,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=TensorBoardLogger(folder, name=None, version="logs"),
        callbacks=[checkpoint, LearningRateMonitor("step"), RoundProgressBar(title), whole, *(callbacks or [])],
        default_root_dir=folder,
        enable_model_summary=False,
    )
    last = folder / "checkpoints" / "last.ckpt"
    trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    whole.put_back_(model)
    trainer.validate(module, data, verbose=False)
    whole.put_back_(model)
    perplexity = float(trainer.callback_metrics["validation/perplexity"])
    if trainer.logger:
        trainer.logger.log_metrics({"validation/perplexity": perplexity}, step=settings.steps)
    return trainer, perplexity


def _check(settings: OptimisationSettings, trainer_options: dict[str, Any], model: PreTrainedModel) -> None:
    """Raises LceError for settings that would fail late or without a clear reason."""
    for name in ("steps", "batch_size", "checkpoint_every", "validate_every"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise LceError(f"train.{name}: expected a positive number, got {value}")
    longest = longest_input(model)
    if not 2 < settings.max_length <= longest:
        raise LceError(f"train.max_length: the model takes up to {longest} tokens, got {settings.max_length}")
    shares = int(os.environ.get("WORLD_SIZE", 1)) * (trainer_options.get("accumulate_grad_batches") or 1)
    if settings.batch_size < shares:
        raise LceError(f"train.batch_size: {settings.batch_size} sentences cannot be divided into {shares} shares")
    devices = trainer_options.get("devices", 1)
    if devices not in (1, "1", [0]) and not {"LOCAL_RANK", "SLURM_PROCID"} & set(os.environ):
        raise LceError(
            f"trainer.devices: {devices} devices train one model in several processes, which a launcher starts: "
            "torchrun --nproc-per-node N -m lce.cli train … --trainer.devices N"
        )
