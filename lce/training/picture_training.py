"""What trainings on drawn pictures have in common: made once, in a folder of their own, from batches by number."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lce.foundations.atomic_files import check_new
from lce.foundations.files import claim, save_config
from lce.foundations.locks import held
from lce.foundations.paths import CONFIG, RECORD, TRAIN_LOCK
from lce.training.checkpoints import CHECKPOINTS
from lce.training.trainer_options import numerics

log = logging.getLogger(__name__)

FINISHED = "model"


def trained_once(
    settings: Any, trainer_options: dict[str, Any], command: str, results: Iterable[str], train: Callable[..., None]
) -> Path:
    """The folder of the model that ``train(settings, trainer_options, folder, finished)`` makes, if there is none yet.

    Args:
        settings: a dataclass with ``experiment`` and ``output``.
        command: the one that makes it.
        results: what it makes in the experiment's folder beside the model and its checkpoints.

    Raises:
        LceError: the folder holds results of other settings, or another training is at work there.
    """
    folder = Path(settings.experiment)
    finished = Path(settings.output) if settings.output else folder / FINISHED
    free = {"experiment", "output", "pictures", "downloads"}
    shared = {key: value for key, value in asdict(settings).items() if key not in free}
    shared |= {"trainer": numerics(trainer_options)}
    with held(folder / TRAIN_LOCK, f"{folder}: another training is at work there"):
        claim(folder, shared, (FINISHED, f"{CHECKPOINTS}/*", RECORD, *results), command)
        save_config(folder / CONFIG, asdict(settings) | {"trainer": trainer_options}, command)
        if (finished / "config.json").exists() and (folder / RECORD).exists():
            log.info("%s exists already; nothing to do", finished)
        else:
            check_new(finished)
            train(settings, trainer_options, folder, finished)
    return finished


class NumberedData(L.LightningDataModule):
    """Batches for training, and one call for validation, which has its own pictures.

    Args:
        batches: a dataset with ``start``, the step whose batch is the first one.
    """

    def __init__(self, batches: Any) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Any]:
        assert isinstance(self.trainer, Trainer), "Lightning attaches the trainer before it asks for batches"
        self.batches.start = self.trainer.global_step
        return DataLoader(self.batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader([torch.zeros(1)], batch_size=None)  # type: ignore[arg-type]
