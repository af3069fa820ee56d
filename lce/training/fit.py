"""One fit: a LightningModule trained for a fixed number of steps, logged, and resumed where it was killed."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn

from lce.foundations.atomic_files import writing
from lce.checks import check_trainer, check_training
from lce.config import OptimisationSettings
from lce.data.encoding import EncodedTexts
from lce.data.module import MaskedTextModule
from lce.foundations.errors import LceError
from lce.models.masked_lm import MaskedLanguageModel, compile_layers, longest_input
from lce.training.checkpoints import LAST, AtomicCheckpointIO, last_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def identity_of(settings: OptimisationSettings) -> dict[str, Any]:
    """The settings on which results depend: all but how and when batches and checkpoints are made."""
    free = ("workers", "validate_every", "checkpoint_every")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def numerics(trainer_options: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's options on which results depend: all but where and how it runs."""
    free = ("accelerator", "strategy", "devices", "num_nodes", "log_every_n_steps")
    return {key: str(value) for key, value in trainer_options.items() if key not in free}


def on_one_device(trainer_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a Trainer that evaluates, which one device does even where several train."""
    devices = trainer_options.get("devices")
    one = devices if isinstance(devices, list) and len(devices) == 1 else 1
    return dict(trainer_options) | {"devices": one, "num_nodes": 1, "strategy": "auto"}


def check_machine(trainer_options: Mapping[str, Any]) -> None:
    """Raises LceError where Lightning cannot do on this machine what the options ask for: there is no GPU, say."""
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    try:
        Trainer(**trainer_options, **quiet, logger=False)
    except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError) as error:
        asked = ", ".join(f"{name} {trainer_options.get(name)}" for name in ("accelerator", "strategy", "devices"))
        precision = trainer_options.get("precision")
        asked += f", precision {precision}" if precision else ""
        raise LceError(f"trainer: {asked}: is not available on this machine ({error})") from error


class OwnSignals(Callback):
    """Has signals answered as before the fit: Lightning's answer to SIGTERM waits for all processes, in the handler."""

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()

    def _put_back(self) -> None:
        if callable(self.handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)


class Diverged(LceError):
    """A training whose numbers are no longer finite."""


def check_finite(value: float, name: str, step: int) -> None:
    """Raises Diverged for an infinite value or NaN."""
    if not isfinite(value):
        raise Diverged(f"the training diverged: {name} is {value} after step {step}; lower train.learning_rate")


CHECKED_EVERY = 20
"""Batches on a GPU from one look at the loss to the next: looking means waiting."""


class DivergenceCheck(Callback):
    """Ends a training whose loss is no longer finite, at once on a processor and soon on a GPU, which is not halted."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cpu" or batch_idx % CHECKED_EVERY == 0:
            check_finite(float(outputs["loss"]), "the loss", trainer.global_step)


class RoundProgressBar(TQDMProgressBar):
    """Bars on standard error, headed by what is being trained; off a terminal, one line when it begins."""

    def __init__(self, title: str) -> None:
        super().__init__(refresh_rate=5)
        self.title = title
        if not sys.stderr.isatty():
            self.disable()

    def init_train_tqdm(self) -> Tqdm:
        return self._bar(self.title)

    def init_validation_tqdm(self) -> Tqdm:
        return self._bar(f"{self.title}, held-out sentences")

    def _bar(self, title: str) -> Tqdm:
        form = {"dynamic_ncols": True, "smoothing": 0, "bar_format": self.BAR_FORMAT}
        return Tqdm(desc=title, disable=self.is_disabled, file=sys.stderr, **form)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_start(trainer, *_)
        if trainer.is_global_zero and self.is_disabled:
            log.info("%s: step %s of %s", self.title, trainer.global_step, trainer.max_steps)

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

    TensorBoard logs and checkpoints go to ``folder``; if it holds a checkpoint, training resumes from there
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
    checkpoints = folder / "checkpoints"
    checkpoint = ModelCheckpoint(
        dirpath=checkpoints,
        filename=Path(LAST).stem,
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
        callbacks=[
            checkpoint,
            LearningRateMonitor("step"),
            RoundProgressBar(title),
            DivergenceCheck(),
            OwnSignals(),
            whole,
            *(callbacks or []),
        ],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        enable_model_summary=False,
    )
    last = last_checkpoint(checkpoints)
    try:
        with writing(folder):
            trainer.fit(module, data, ckpt_path=str(last) if last else None, weights_only=True)
            whole.put_back_(model)
            trainer.validate(module, data, verbose=False)
            whole.put_back_(model)
        perplexity = float(trainer.callback_metrics["validation/perplexity"])
        check_finite(perplexity, "the perplexity on held-out sentences", settings.steps)
    except Diverged:
        shutil.rmtree(checkpoints, ignore_errors=True)  # nothing to resume from, and the folder is free again
        raise
    if trainer.logger:
        trainer.logger.log_metrics({"validation/perplexity": perplexity}, step=settings.steps)
    return trainer, perplexity


def _check(settings: OptimisationSettings, trainer_options: dict[str, Any], model: PreTrainedModel) -> None:
    """Raises LceError for settings that would fail late or without a clear reason."""
    check_training(settings)
    check_trainer(trainer_options, settings.batch_size)
    longest = longest_input(model)
    if settings.max_length > longest:
        raise LceError(f"train.max_length: the model takes up to {longest} tokens, got {settings.max_length}")
