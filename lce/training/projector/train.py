"""`lce pretrain-projector`: a projector trained on drawn pictures, measured on held-out ones and written."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lce.data.pictures.drawn import draw_pictures
from lce.data.pictures.table import TABLE, read_table
from lce.foundations.atomic_files import check_new, writing
from lce.foundations.files import claim, save_config, write_json
from lce.foundations.locks import held
from lce.foundations.paths import CONFIG, RECORD, TRAIN_LOCK
from lce.foundations.seeds import derive
from lce.models.assembled import assemble, projector_of, save, save_projector
from lce.models.converted import provide
from lce.training.callbacks import Diverged, check_finite
from lce.training.checkpoints import CHECKPOINTS, last_checkpoint
from lce.training.clip.batches import in_memory
from lce.training.clip.captions import Row
from lce.training.fit import make_trainer
from lce.training.projector.batches import Answered, AnsweredBatches, Prompt
from lce.training.projector.module import ProjectorModule
from lce.training.projector.settings import ProjectorSettings, check_projector
from lce.training.projector.validation import HeldOutAnswers
from lce.training.trainer_options import numerics

log = logging.getLogger(__name__)

FINISHED, PROJECTOR = "model", "projector"


def pretrain_projector(settings: ProjectorSettings, trainer_options: dict[str, Any]) -> Path:
    """Train a projector, or go on with it; return the folder of the whole model. One that exists is not trained again.

    Raises:
        LceError: the settings, the models or the pictures cannot be used, or the training diverged.
    """
    check_projector(settings)
    folder = Path(settings.experiment)
    finished = Path(settings.output) if settings.output else folder / FINISHED
    free = {"experiment", "output", "pictures", "downloads"}
    shared = {key: value for key, value in asdict(settings).items() if key not in free}
    shared |= {"trainer": numerics(trainer_options)}
    with held(folder / TRAIN_LOCK, f"{folder}: another training is at work there"):
        claim(folder, shared, (FINISHED, PROJECTOR, f"{CHECKPOINTS}/*", RECORD), "pretrain-projector")
        save_config(folder / CONFIG, asdict(settings) | {"trainer": trainer_options}, "pretrain-projector")
        if (finished / "config.json").exists() and (folder / RECORD).exists():
            log.info("%s exists already; nothing to do", finished)
        else:
            check_new(finished)
            _train(settings, trainer_options, folder, finished)
    return finished


def _train(settings: ProjectorSettings, trainer_options: dict[str, Any], folder: Path, finished: Path) -> None:
    pictures = draw_pictures(settings.pictures, settings.downloads)
    rows: list[Row] = [*read_table(pictures / TABLE)]
    training = [row for row in rows if row["split"] == "training"]
    held_out = [row for row in rows if row["split"] == "held-out" and row["kind"] == "occupation"]
    provide(settings.decoder, settings.downloads)
    model, processor, parts = assemble(settings.clip, settings.decoder, derive(settings.seed, "initialisation"))
    count = sum(parameter.numel() for parameter in projector_of(model).parameters())
    log.info("%s of %s weights are trained", f"{count:,}", f"{model.num_parameters():,}")
    prompt, size = Prompt(processor, settings.question), processor.image_processor.crop_size["width"]
    batches = AnsweredBatches(training, in_memory(pictures, training, size), prompt, settings)
    measured = HeldOutAnswers(held_out, in_memory(pictures, held_out, size), prompt)
    train = settings.train
    trainer = make_trainer(
        folder, "projector", train.steps, train.validate_every, train.checkpoint_every, trainer_options, []
    )  # fmt: skip
    module = ProjectorModule(model, train, measured)
    last = last_checkpoint(folder / CHECKPOINTS)
    with writing(folder):
        try:
            trainer.fit(module, ProjectorData(batches), ckpt_path=str(last) if last else None, weights_only=True)
        except Diverged:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            raise
    scores = measured.scores(model.float())
    for name, value in scores.items():
        check_finite(value, f"{name} on held-out pictures", train.steps)
    write_json(folder / RECORD, scores | {"held_out_pictures": len(held_out)})
    about = {"question": settings.question, "answer": settings.answer, "seed": settings.seed}
    if not (folder / PROJECTOR).exists():
        save_projector(model, parts, folder / PROJECTOR, about)
    projector_of(model).half().float()  # so that it is what was written
    save(model, processor, finished)


class ProjectorData(L.LightningDataModule):
    """Batches for training, and one call for validation, which has its own pictures."""

    def __init__(self, batches: AnsweredBatches) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Answered]:
        assert isinstance(self.trainer, Trainer), "Lightning attaches the trainer before it asks for batches"
        self.batches.start = self.trainer.global_step
        return DataLoader(self.batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader([torch.zeros(1)], batch_size=None)  # type: ignore[arg-type]
