"""Lightning callbacks: one keeps pruned weights at zero while a subnetwork trains, one tries an edit on a model."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from functools import cached_property

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from lce.foundations.errors import LceError
from lce.metrics.items import ItemMetric
from lce.metrics.suite import BiasSuite, Scores, all_scores
from lce.storage.changes import Changes, write_values_
from lce.training.module import MaskedLanguageModel


def _checked(module: LightningModule) -> MaskedLanguageModel:
    assert isinstance(module, MaskedLanguageModel), "these callbacks work on a MaskedLanguageModel"
    return module


class EditCallback(Callback):
    """Applies an edit while a model is evaluated, logs the edited model's scores, and restores the weights exactly.

    Args:
        changes: what the edit does; None evaluates the model as it is.
        suite: bias benchmarks to run on top of the evaluation's own perplexity.
        alpha: strength of the edit. TensorBoard counts in whole steps, so it logs at step 100 · α.
        tag: heading of the logged scores; nothing is logged without one.
        leave_out: names of metrics that are not measured.

    Attributes:
        metrics: all metrics, after the evaluation.
        scores: their scores.
    """

    def __init__(
        self,
        changes: Changes | None,
        suite: BiasSuite,
        alpha: float = 0.0,
        tag: str | None = None,
        leave_out: Collection[str] = (),
    ) -> None:
        self.changes: Changes = changes or {}
        self.suite = suite
        self.alpha = alpha
        self.tag = tag
        self.leave_out = leave_out
        self.metrics: list[ItemMetric] = []
        self._is_applied = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._parameters = dict(_checked(pl_module).model.named_parameters())
        write_values_(self._parameters, self.changes, "new")
        self._is_applied = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module = _checked(pl_module)
        with trainer.precision_plugin.val_step_context():
            self.metrics = self.suite.measure(module.model, self.leave_out)
        if "perplexity" in self.suite.settings.metrics:
            if not module.perplexity.items()["tokens"].any():
                raise LceError("perplexity: no token of these few sentences is masked; measure it on more of them")
            self.metrics.append(deepcopy(module.perplexity))
        if not all(metric.is_finite() for metric in self.metrics):
            edited = f", edited with α = {self.alpha:g}," if self.changes else ""
            raise LceError(f"model {module.model.name_or_path}{edited}: gives scores that are not finite numbers")
        if self.tag and trainer.logger:
            log_scores(trainer.logger, self.tag, self.alpha, self.scores)

    @cached_property
    def scores(self) -> Scores:
        return all_scores(self.metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._is_applied:
            write_values_(self._parameters, self.changes, "old")
            self._is_applied = False


def log_scores(logger: Logger, tag: str, alpha: float, scores: Scores) -> None:
    """Log ``scores`` under ``tag`` at step 100 · α, because TensorBoard counts in whole steps."""
    values = {f"{tag}/{name}": score["value"] for name, score in scores.items()}
    logger.log_metrics(values, step=round(100 * alpha))
