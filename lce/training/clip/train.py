"""`lce pretrain-clip`: a small CLIP trained on drawn pictures, measured on held-out ones and written."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lce.data.pictures.drawn import draw_pictures
from lce.data.pictures.table import TABLE, read_table
from lce.foundations.atomic_files import new_folder, writing
from lce.foundations.files import write_json
from lce.foundations.paths import RECORD
from lce.foundations.seeds import derive
from lce.models.loading import without_bounds
from lce.training.callbacks import Diverged, check_finite
from lce.training.checkpoints import CHECKPOINTS, last_checkpoint
from lce.training.clip.batches import ClipBatches, in_memory
from lce.training.clip.captions import Row, vocabulary_texts
from lce.training.clip.module import ClipModule
from lce.training.clip.settings import ClipSettings, check_clip
from lce.training.clip.validation import HeldOut
from lce.training.fit import make_trainer
from lce.training.picture_training import NumberedData, trained_once

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

log = logging.getLogger(__name__)

LONGEST = 24
"""Longest text [tokens]."""


def pretrain_clip(settings: ClipSettings, trainer_options: dict[str, Any]) -> Path:
    """Train a CLIP, or go on with it; return its folder. One that exists is not trained again.

    Raises:
        LceError: the settings or the pictures cannot be used, or the training diverged.
    """
    check_clip(settings)
    return trained_once(settings, trainer_options, "pretrain-clip", (), _train)


def _train(settings: ClipSettings, trainer_options: dict[str, Any], folder: Path, finished: Path) -> None:
    pictures = draw_pictures(settings.pictures, settings.downloads)
    rows: list[Row] = [*read_table(pictures / TABLE)]
    training = [row for row in rows if row["split"] == "training"]
    held_out = [row for row in rows if row["split"] == "held-out" and row["kind"] == "occupation"]
    tokenizer = make_tokenizer(training, settings.vocabulary)
    model = make_model(settings, tokenizer)
    log.info("%s weights; vocabulary: %s pieces", f"{model.num_parameters():,}", f"{len(tokenizer):,}")
    batches = ClipBatches(training, in_memory(pictures, training, settings.size), tokenizer, settings)
    measured = HeldOut(held_out, in_memory(pictures, held_out, settings.size), tokenizer, settings.shares)
    train = settings.train
    trainer = make_trainer(
        folder, "CLIP", train.steps, train.validate_every, train.checkpoint_every, trainer_options, []
    )  # fmt: skip
    module = ClipModule(model.train(), train, measured)
    last = last_checkpoint(folder / CHECKPOINTS)
    with writing(folder):
        try:
            trainer.fit(module, NumberedData(batches), ckpt_path=str(last) if last else None, weights_only=True)
            trainer.validate(module, NumberedData(batches), verbose=False)
            scores = {
                name.removeprefix("validation/"): float(value)
                for name, value in trainer.callback_metrics.items()
                if name.startswith("validation/")
            }
            for name, value in scores.items():
                check_finite(value, f"{name} on held-out pictures", train.steps)
        except Diverged:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            raise
    write_json(folder / RECORD, scores | {"held_out_pictures": len(held_out)})
    save(model, tokenizer, settings, finished)


def make_tokenizer(rows: list[Row], pieces: int) -> CLIPTokenizer:
    """A CLIP tokenizer of so many word ``pieces``, made from the captions of the ``rows``: every time the same one."""
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import CLIPTokenizer

    empty = CLIPTokenizer()
    learner, letters = empty.backend_tokenizer, sorted(ByteLevel.alphabet())
    suffix = learner.model.end_of_word_suffix
    # Left to itself, the trainer numbers letters that end words in another order each time, and breaks ties by that.
    first = [empty.bos_token, empty.eos_token, *letters, *(f"{letter}{suffix}" for letter in letters)]
    trainer = BpeTrainer(vocab_size=pieces, special_tokens=first, end_of_word_suffix=suffix, show_progress=False)
    learner.train_from_iterator(vocabulary_texts(rows), trainer)
    learned = json.loads(learner.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learned["merges"]]
    made: CLIPTokenizer = CLIPTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=LONGEST)
    return made


def make_model(settings: ClipSettings, tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP of the asked size with random weights."""
    from transformers import CLIPConfig, CLIPModel

    def tower(name: str) -> dict[str, Any]:
        about = getattr(settings, name)
        return {
            "hidden_size": about.width,
            "intermediate_size": 4 * about.width,
            "num_hidden_layers": about.layers,
            "num_attention_heads": about.heads,
            "projection_dim": settings.embedding,
            "hidden_act": "gelu",
        }

    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = tower("text") | ids | {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    config = CLIPConfig(
        vision_config=tower("image") | {"image_size": settings.size, "patch_size": settings.patch},
        text_config=text | {"max_position_embeddings": LONGEST},
        projection_dim=settings.embedding,
    )
    torch.manual_seed(derive(settings.seed, "initialisation"))
    # On processors, this attention is several times as fast in training as the fused one.
    return CLIPModel._from_config(config, attn_implementation="eager")


def save(model: CLIPModel, tokenizer: CLIPTokenizer, settings: ClipSettings, folder: Path) -> None:
    """Write the model in half precision, with what prepares pictures and texts for it."""
    from transformers import CLIPImageProcessorPil

    size = settings.size
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    with new_folder(folder) as temporary:
        model.half().save_pretrained(temporary)
        without_bounds(tokenizer).save_pretrained(temporary)
        processor.save_pretrained(temporary)
