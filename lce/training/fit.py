"""One fit: a LightningModule trained for a fixed number of steps, logged, and resumed where it was killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lce.checks import check_trainer, check_training
from lce.config import OptimisationSettings
from lce.data.encoding import EncodedTexts
from lce.data.module import TextModule, evaluation_collator, training_collator
from lce.foundations.atomic_files import writing
from lce.foundations.errors import LceError
from lce.models.kinds import kind_of
from lce.models.layers import compile_layers
from lce.models.loading import longest_input
from lce.training import callbacks as own
from lce.training.checkpoints import CHECKPOINTS, LAST, AtomicCheckpointIO, last_checkpoint
from lce.training.module import MODULES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
    kind = kind_of(str(model.name_or_path), model.config)
    module = MODULES[kind](
        model,
        settings.learning_rate,
        settings.steps,
        seed,
        settings.warmup_steps,
        settings.weight_decay,
        settings.freeze,
    )
    asked = settings.term_probability, settings.mask_probability, settings.term_weight
    data = TextModule(
        training_collator(kind, texts[0], tokenizer, seed, *asked),
        evaluation_collator(kind, texts[1], tokenizer, settings.mask_probability),
        batch_size=settings.batch_size,
        seed=seed,
        steps=settings.steps,
        workers=settings.workers,
    )
    checkpoints = folder / CHECKPOINTS
    whole = own.WholeParameters()
    trainer = make_trainer(
        folder, title, settings.steps, settings.validate_every, settings.checkpoint_every, trainer_options,
        [whole, *(callbacks or [])],
    )  # fmt: skip
    last = last_checkpoint(checkpoints)
    try:
        with writing(folder):
            trainer.fit(module, data, ckpt_path=str(last) if last else None, weights_only=True)
            whole.put_back_(model)
            trainer.validate(module, data, verbose=False)
            whole.put_back_(model)
        perplexity = float(trainer.callback_metrics["validation/perplexity"])
        own.check_finite(perplexity, "the perplexity on held-out sentences", settings.steps)
    except own.Diverged:
        shutil.rmtree(checkpoints, ignore_errors=True)  # nothing to resume from, and the folder is free again
        raise
    if trainer.logger:
        trainer.logger.log_metrics({"validation/perplexity": perplexity}, step=settings.steps)
    return trainer, perplexity


def make_trainer(
    folder: Path,
    title: str,
    steps: int,
    validate_every: int | None,
    checkpoint_every: int,
    trainer_options: dict[str, Any],
    callbacks: list[Callback],
) -> Trainer:
    """A Trainer for so many ``steps`` that logs to ``folder`` and keeps there the checkpoint to resume from."""
    accumulated = trainer_options.get("accumulate_grad_batches") or 1
    checkpoint = ModelCheckpoint(
        dirpath=folder / CHECKPOINTS,
        filename=Path(LAST).stem,
        every_n_train_steps=checkpoint_every,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return Trainer(
        **trainer_options,
        max_steps=steps,
        val_check_interval=(validate_every or steps + 1) * accumulated,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=TensorBoardLogger(folder, name=None, version="logs"),
        callbacks=[
            checkpoint,
            LearningRateMonitor("step"),
            own.RoundProgressBar(title),
            own.DivergenceCheck(),
            own.OwnSignals(),
            *callbacks,
        ],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        enable_model_summary=False,
    )


def _check(settings: OptimisationSettings, trainer_options: dict[str, Any], model: PreTrainedModel) -> None:
    """Raises LceError for settings that would fail late or without a clear reason."""
    check_training(settings)
    check_trainer(trainer_options, settings.batch_size)
    longest = longest_input(model)
    if settings.max_length > longest:
        raise LceError(f"train.max_length: the model takes up to {longest} tokens, got {settings.max_length}")
