"""Lightning callbacks of every fit: signals, divergence, progress, and parameters in one piece."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from math import isfinite
from typing import TYPE_CHECKING, Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn

from lce.foundations.errors import LceError
from lce.training.module import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


log = logging.getLogger(__name__)


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
            with cast(LanguageModel, pl_module).whole_parameters() as parameters:
                self.learned = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}

    def put_back_(self, model: PreTrainedModel) -> None:
        """Give ``model`` ordinary parameters again, with the values that it learned."""
        for name, values in self.learned.items():
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, nn.Parameter(values.clone()))
        if self.learned:
            model.tie_weights()
