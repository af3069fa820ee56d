"""`lce pretrain-projector`: a projector trained on drawn pictures, measured on held-out ones and written."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from lce.data.pictures.drawn import draw_pictures
from lce.data.pictures.table import TABLE, read_table
from lce.foundations.atomic_files import writing
from lce.foundations.files import write_json
from lce.foundations.paths import RECORD
from lce.foundations.seeds import derive
from lce.models.assembled import assemble, projector_of, save, save_projector
from lce.models.converted import provide
from lce.training.callbacks import Diverged, check_finite
from lce.training.checkpoints import CHECKPOINTS, last_checkpoint
from lce.training.clip.batches import in_memory
from lce.training.clip.captions import Row
from lce.training.fit import make_trainer
from lce.training.picture_training import NumberedData, trained_once
from lce.training.projector.batches import AnsweredBatches, Prompt
from lce.training.projector.module import ProjectorModule
from lce.training.projector.settings import ProjectorSettings, check_projector
from lce.training.projector.validation import HeldOutAnswers

log = logging.getLogger(__name__)

PROJECTOR = "projector"


def pretrain_projector(settings: ProjectorSettings, trainer_options: dict[str, Any]) -> Path:
    """Train a projector, or go on with it; return the folder of the whole model. One that exists is not trained again.

    Raises:
        LceError: the settings, the models or the pictures cannot be used, or the training diverged.
    """
    check_projector(settings)
    return trained_once(settings, trainer_options, "pretrain-projector", (PROJECTOR,), _train)


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
            trainer.fit(module, NumberedData(batches), ckpt_path=str(last) if last else None, weights_only=True)
        except Diverged:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            raise
    scores = measured.scores(model.float().to(trainer.strategy.root_device))  # Lightning took the projector back alone
    model.cpu()
    for name, value in scores.items():
        check_finite(value, f"{name} on held-out pictures", train.steps)
    write_json(folder / RECORD, scores | {"held_out_pictures": len(held_out)})
    about = {"question": settings.question, "answer": settings.answer, "seed": settings.seed}
    if not (folder / PROJECTOR).exists():
        save_projector(model, parts, folder / PROJECTOR, about)
    projector_of(model).half().float()  # so that it is what was written
    save(model, processor, finished)
