"""The LightningDataModule: length-bucketed batches for training, and fixed ones for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Sampler

from lce.config import DataSettings, Kind, Variant
from lce.data.batches import Batch, CollatedBatches, EvaluationBatches, TrainingBatches
from lce.data.cda import Annotation, Bias, render
from lce.data.collating import Collator, TokenBatch
from lce.data.encoding import EncodedTexts, encode, padding_id
from lce.data.masking import MaskingCollator, MaskingProbabilities, masking_probabilities
from lce.data.next_token import NextTokenCollator, term_weights
from lce.data.specification import load_specification
from lce.foundations.errors import LceError
from lce.foundations.paths import EXAMPLES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES: dict[str, tuple[str, ...]] = {
    "stereotypical": ("biased", "neutral"),
    "anti-stereotypical": ("biased", "neutral"),
    "neutral": ("control",),
}


def read_examples(path: str | Path, variant: Variant | None, evaluation: bool) -> tuple[list[str], list[str]]:
    """Texts of one side of the split as they stand in ``variant``, and the sentences they were made from.

    Without a ``variant``, the texts are the biased and neutral sentences as their authors wrote them.

    Raises:
        LceError: there is no such file, or no such sentence in it.
    """
    if not Path(path).exists():
        raise LceError(f"{path}: no such file; `lce data` with the same configuration makes it")
    roles = ROLES[variant or "stereotypical"]
    texts, sources = [], []
    for row in pq.read_table(path).to_pylist():
        if row["evaluation"] != evaluation or row["role"] not in roles:
            continue
        kind: Bias = "biased" if row["role"] == "biased" else "neutral"
        found = Annotation(kind, row["target_group"], row["attribute_group"], row["counterfactual"])
        sources.append(row["text"])
        texts.append(render(row["text"], found, variant) if variant else row["text"])
    if not texts:
        raise LceError(f"{path}: no {'evaluation' if evaluation else 'training'} sentences of role {', '.join(roles)}")
    return texts, sources


def encoded_examples(
    settings: DataSettings,
    variant: Variant | None,
    evaluation: bool,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> EncodedTexts:
    """One side of the prepared split, encoded: as it stands in ``variant``, or, for None, as its authors wrote it."""
    spec = load_specification(settings.specification)
    examples = read_examples(Path(settings.folder) / EXAMPLES, variant, evaluation)
    return encode(*examples, tokenizer, spec, max_length)


UNBOUNDED = 2**20
"""Length from which a tokenizer counts as without a limit [tokens]."""


def read_text(path: str | Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The sentences of a text file, one a line; empty lines are skipped.

    Raises:
        LceError: the file is missing, empty or no UTF-8 text, or a sentence is longer than the model.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LceError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise LceError(f"{path}: holds no text; expected one sentence a line")
    sentences = [line for _, line in numbered]
    longest = min(tokenizer.model_max_length, UNBOUNDED)
    encoded = encode(sentences, sentences, tokenizer, None, max_length=longest + 1)
    for (number, _), size in zip(numbered, encoded.offsets.diff().tolist(), strict=True):
        if size > longest:
            raise LceError(f"{path}, line {number}: is longer than the {longest:,} tokens that the model takes")
    return sentences


class TextModule(L.LightningDataModule):
    """Batches of sentences for a training and its validation.

    Args:
        training: asks about the training sentences.
        evaluation: asks about the held-out sentences.
        batch_size: sentences per step, over all devices and accumulated parts.
        seed: seed of the order.
        steps: optimiser steps that the training batches last for.
        workers: processes that prepare batches; 0 does it in the main process.
    """

    def __init__(
        self, training: Collator, evaluation: Collator, batch_size: int, seed: int, steps: int, workers: int = 0
    ) -> None:
        super().__init__()
        self.training, self.evaluation = training, evaluation
        self.batch_size, self.seed, self.steps, self.workers = batch_size, seed, steps, workers

    def train_dataloader(self) -> DataLoader[TokenBatch]:
        trainer = self._trainer()
        batches = TrainingBatches(
            self.training.corpus.sizes,
            self.batch_size,
            self.seed,
            steps=self.steps,
            start=trainer.global_step,
            rank=trainer.global_rank,
            world=trainer.world_size,
            parts=trainer.accumulate_grad_batches,
        )
        return _loader(self.training, batches, self.workers)

    def val_dataloader(self) -> DataLoader[TokenBatch]:
        place = self._trainer().global_rank, self._trainer().world_size
        return evaluation_loader(self.evaluation, self.batch_size, *place)

    def _trainer(self) -> L.Trainer:
        assert self.trainer is not None, "Lightning attaches the trainer before it asks for batches"
        return self.trainer


def training_collator(
    kind: Kind,
    texts: EncodedTexts,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    term_probability: float,
    mask_probability: float,
    term_weight: float,
) -> Collator:
    """What asks a model of this ``kind`` about training sentences: terms are asked for more often, or weigh more.

    Args:
        term_probability: probability of masking a token of a specification term (masked models).
        mask_probability: average probability of masking a token (masked models).
        term_weight: what the loss of such a token counts (causal models).
    """
    if kind == "causal":
        return NextTokenCollator(texts, padding_id(tokenizer), term_weights(texts, term_weight))
    special_ids = torch.tensor(tokenizer.all_special_ids)
    probabilities = masking_probabilities(texts, special_ids, term_probability, mask_probability)
    return MaskingCollator(texts, tokenizer, probabilities, seed)


def evaluation_collator(
    kind: Kind, texts: EncodedTexts, tokenizer: PreTrainedTokenizerBase, mask_probability: float
) -> Collator:
    """What asks a model of this ``kind`` about held-out sentences, the same every time, whatever their terms."""
    if kind == "causal":
        return NextTokenCollator(texts, padding_id(tokenizer))
    plain = MaskingProbabilities(term=mask_probability, other=mask_probability)
    return MaskingCollator(texts, tokenizer, plain, seed=0)


def evaluation_loader(collator: Collator, batch_size: int, rank: int = 0, world: int = 1) -> DataLoader[TokenBatch]:
    """All texts of ``collator`` once; each of ``world`` processes gets a share."""
    return _loader(collator, EvaluationBatches(collator.corpus.sizes, batch_size, rank, world), workers=0)


def _loader(collator: Collator, batches: Sampler[Batch], workers: int) -> DataLoader[TokenBatch]:
    pinned = torch.cuda.is_available()
    return DataLoader(
        CollatedBatches(collator), sampler=batches, batch_size=None, num_workers=workers, pin_memory=pinned
    )
