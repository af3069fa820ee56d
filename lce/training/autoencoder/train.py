"""`lce train-sae`: an autoencoder of a model's states, trained, checked on held-out text and written."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import pyarrow.parquet as pq
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lce.data.collating import TokenBatch
from lce.data.encoding import EncodedTexts, encode, padding_id
from lce.data.module import evaluation_collator, evaluation_loader
from lce.data.prepare import prepare_sentences
from lce.foundations.atomic_files import check_new, writing
from lce.foundations.errors import LceError
from lce.foundations.files import claim, save_config, write_json
from lce.foundations.locks import held
from lce.foundations.paths import CONFIG, RECORD, TRAIN_LOCK
from lce.foundations.seeds import generator
from lce.models.autoencoder import SparseAutoencoder
from lce.models.autoencoder_files import SETTINGS, save_autoencoder
from lce.models.converted import provide
from lce.models.kinds import kind_of
from lce.models.loading import load_language_model
from lce.models.sites import SINK, Site, find_site, hook_of, width_at
from lce.storage.hub import identity
from lce.training.autoencoder.module import AutoencoderModule, centre_and_scale
from lce.training.autoencoder.settings import AutoencoderSettings, check_autoencoder
from lce.training.autoencoder.states import States
from lce.training.autoencoder.validation import Splicing
from lce.training.callbacks import Diverged, check_finite
from lce.training.checkpoints import CHECKPOINTS, last_checkpoint
from lce.training.fit import make_trainer
from lce.training.trainer_options import numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FINISHED, STATES = "autoencoder", "states"
HELD_OUT_SENTENCES = 400
"""How many held-out sentences the autoencoder is validated on."""
SAMPLED = 1000
"""Sentences by which their average length is told."""


def train_autoencoder(settings: AutoencoderSettings, trainer_options: dict[str, Any]) -> Path:
    """Train an autoencoder, or go on with it; return its folder. One that exists is not trained again.

    Raises:
        LceError: the settings, the model, its site or the text cannot be used, or the training diverged.
    """
    check_autoencoder(settings)
    provide(settings.model, settings.data.downloads)
    folder = Path(settings.experiment)
    finished = Path(settings.output) if settings.output else folder / FINISHED
    free = {"experiment", "output", "trust_remote_code"}
    shared = {key: value for key, value in asdict(settings).items() if key not in free}
    shared |= {"model": identity(settings.model).fingerprint, "trainer": numerics(trainer_options)}
    with held(folder / TRAIN_LOCK, f"{folder}: another training is at work there"):
        claim(folder, shared, (FINISHED, f"{CHECKPOINTS}/*", f"{STATES}/*", RECORD), "train-sae")
        save_config(folder / CONFIG, asdict(settings) | {"trainer": trainer_options}, "train-sae")
        if (finished / SETTINGS).exists() and (folder / RECORD).exists():
            log.info("%s exists already; nothing to do", finished)
        else:
            check_new(finished)  # nor is there another's
            _train(settings, trainer_options, folder, finished)
    return finished


def _train(settings: AutoencoderSettings, trainer_options: dict[str, Any], folder: Path, finished: Path) -> None:
    model, tokenizer = load_language_model(settings.model, settings.trust_remote_code)
    model.requires_grad_(False)
    site = find_site(model, settings.site)
    learned, held_out = _texts(settings, tokenizer)
    train = settings.train
    pad_id = padding_id(tokenizer)
    states = States(
        model, site, learned, pad_id, width_at(model, site), train.batch_size, settings.seed, train.steps,
        train.tokens, train.chunk, train.memory * 1e9, folder / STATES,
    )  # fmt: skip
    trainer = make_trainer(
        folder, f"autoencoder of {site.name}", train.steps, train.validate_every, train.checkpoint_every,
        trainer_options, [],
    )  # fmt: skip
    with writing(folder), _freed(folder, states):
        model.to(trainer.strategy.root_device)  # type: ignore[arg-type]
        centre, scale = centre_and_scale(states.states(0))
        module = AutoencoderModule(settings, centre, scale)
        kind = kind_of(settings.model, model.config)
        batches = evaluation_loader(evaluation_collator(kind, held_out, tokenizer, 0.15), 32)
        module.splicing = Splicing(model, site, SINK * float(states.states(0).norm(dim=1).median()))
        data = StatesModule(states, batches)
        last = last_checkpoint(folder / CHECKPOINTS)
        trainer.fit(module, data, ckpt_path=str(last) if last else None, weights_only=True)
        trainer.validate(module, data, verbose=False)
        scores = {name.removeprefix("validation/"): float(value) for name, value in trainer.callback_metrics.items()
                  if name.startswith("validation/")}  # fmt: skip
        for name, value in scores.items():
            check_finite(value, f"{name} on held-out text", train.steps)
    states.remove()
    write_json(folder / RECORD, scores)
    found = _finished(settings, model, site, module.cpu(), scores)
    save_autoencoder(found, finished, torch.float16 if settings.half else torch.float32)


@contextmanager
def _freed(folder: Path, states: States) -> Iterator[None]:
    """A training that diverges leaves nothing to resume from, and the folder free for another."""
    try:
        yield
    except Diverged:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        states.remove()
        raise


def _texts(settings: AutoencoderSettings, tokenizer: PreTrainedTokenizerBase) -> tuple[EncodedTexts, EncodedTexts]:
    """The sentences to learn from, and the first of those held out."""
    table = pq.read_table(prepare_sentences(settings.data)).to_pydict()
    sides: dict[bool, list[str]] = {False: [], True: []}
    for text, is_held_out in zip(table["text"], table["evaluation"], strict=True):
        sides[is_held_out].append(text)
    if not sides[True]:
        raise LceError("data: no sentence is held out; give more text, or a larger data.evaluation_fraction")
    if not sides[False]:
        raise LceError("data: every sentence is held out; give more text, or a smaller data.evaluation_fraction")
    chosen = sides[True][:: max(1, len(sides[True]) // HELD_OUT_SENTENCES)]
    length = settings.train.max_length
    return _sampled(sides[False], tokenizer, settings), encode(chosen, chosen, tokenizer, None, length)


def _sampled(texts: list[str], tokenizer: PreTrainedTokenizerBase, settings: AutoencoderSettings) -> EncodedTexts:
    """Enough of the ``texts``, at random, for the states that are wanted."""
    order = torch.randperm(len(texts), generator=generator(settings.seed, "sample of texts")).tolist()
    wanted, number = settings.train.tokens, len(texts)
    if wanted is not None:
        some = [texts[i] for i in order[:SAMPLED]]
        each = len(encode(some, some, tokenizer, None, settings.train.max_length).ids) / len(some) - 1
        number = min(number, int(1.1 * wanted / max(each, 0.1)) + SAMPLED)
    kept = [texts[i] for i in order[:number]]
    return encode(kept, kept, tokenizer, None, settings.train.max_length)


def _finished(
    settings: AutoencoderSettings,
    model: PreTrainedModel,
    site: Site,
    module: AutoencoderModule,
    scores: Mapping[str, float],
) -> SparseAutoencoder:
    """The trained autoencoder with what is to be said about it."""
    about = {
        "model_name": Path(settings.model).name,
        "lce_site": site.name,
        "lce_scores": dict(scores),
        "context_size": settings.train.max_length,
        "prepend_bos": False,
    }
    return module.autoencoder(site=hook_of(model, site), metadata=about)


class StatesModule(L.LightningDataModule):
    """Batches of states for training, and of held-out texts for validation."""

    def __init__(self, states: States, held_out: DataLoader[TokenBatch]) -> None:
        super().__init__()
        self.states, self.held_out = states, held_out

    def train_dataloader(self) -> DataLoader[Tensor]:
        assert isinstance(self.trainer, Trainer), "Lightning attaches the trainer before it asks for batches"
        self.states.start = self.trainer.global_step
        return DataLoader(self.states, batch_size=None)

    def val_dataloader(self) -> DataLoader[TokenBatch]:
        return self.held_out
