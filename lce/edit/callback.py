"""A Lightning callback that has a model validated under an edit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from lce.edit.protocol import Edit
from lce.metrics.suite import Scores
from lce.training.module import checked

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class EditCallback(Callback):
    """Applies an edit for as long as a model is validated, and logs the edited model's scores.

    Args:
        edit: what is applied; afterwards, or after an error, the model is as it was.
        measure: gives the scores that are logged, `lce.evaluation.evaluator.Evaluator.scores` for example.
        alpha: strength of the edit, which is the place of its scores in the log.
        tag: heading of the logged scores.
    """

    def __init__(
        self,
        edit: Edit,
        measure: Callable[[PreTrainedModel], Scores] | None = None,
        alpha: float = 0.0,
        tag: str = "edited",
    ) -> None:
        self.edit, self.measure, self.alpha, self.tag = edit, measure, alpha, tag
        self._applied = ExitStack()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._applied.enter_context(self.edit.applied(checked(pl_module).model))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.measure and trainer.logger:
            log_scores(trainer.logger, self.tag, self.alpha, self.measure(checked(pl_module).model))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._applied.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._applied.close()


def log_scores(logger: Logger, tag: str, alpha: float, scores: Scores) -> None:
    """Log ``scores`` under ``tag`` at step 100 · α, because TensorBoard counts in whole steps."""
    values = {f"{tag}/{name}": score["value"] for name, score in scores.items()}
    logger.log_metrics(values, step=round(100 * alpha))
