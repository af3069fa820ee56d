"""The LightningDataModule: masked, length-bucketed batches for training, and fixed ones for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Sampler

from lce.config import DataSettings, Variant
from lce.data.batches import Batch, EvaluationBatches, MaskedBatches, TrainingBatches
from lce.data.cda import Annotation, Kind, render
from lce.data.encoding import EncodedTexts, encode
from lce.data.masking import MaskedBatch, MaskingCollator, MaskingProbabilities, masking_probabilities
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
        kind: Kind = "biased" if row["role"] == "biased" else "neutral"
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


class MaskedTextModule(L.LightningDataModule):
    """Batches of masked sentences.

    Args:
        train: encoded training sentences.
        evaluation: encoded held-out sentences.
        tokenizer: gives the mask token, and the ordinary tokens that replace some of the masked ones.
        batch_size: sentences per step, over all devices and accumulated parts.
        seed: seed of order and masking.
        steps: optimiser steps that the training batches last for.
        term_probability: probability of masking a token of a specification term.
        mask_probability: average probability of masking a token.
        workers: processes that prepare batches; 0 does it in the main process.
    """

    def __init__(
        self,
        train: EncodedTexts,
        evaluation: EncodedTexts,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        seed: int,
        steps: int,
        term_probability: float,
        mask_probability: float,
        workers: int = 0,
    ) -> None:
        super().__init__()
        special_ids = torch.tensor(tokenizer.all_special_ids)
        probabilities = masking_probabilities(train, special_ids, term_probability, mask_probability)
        self.collator = MaskingCollator(train, tokenizer, probabilities, seed)
        self.evaluation, self.tokenizer, self.mask_probability = evaluation, tokenizer, mask_probability
        self.batch_size, self.seed, self.steps, self.workers = batch_size, seed, steps, workers

    def train_dataloader(self) -> DataLoader[MaskedBatch]:
        trainer = self._trainer()
        batches = TrainingBatches(
            self.collator.corpus.sizes,
            self.batch_size,
            self.seed,
            steps=self.steps,
            start=trainer.global_step,
            rank=trainer.global_rank,
            world=trainer.world_size,
            parts=trainer.accumulate_grad_batches,
        )
        return _loader(self.collator, batches, self.workers)

    def val_dataloader(self) -> DataLoader[MaskedBatch]:
        place = self._trainer().global_rank, self._trainer().world_size
        return evaluation_loader(self.evaluation, self.tokenizer, self.batch_size, self.mask_probability, *place)

    def _trainer(self) -> L.Trainer:
        assert self.trainer is not None, "Lightning attaches the trainer before it asks for batches"
        return self.trainer


def evaluation_loader(
    texts: EncodedTexts,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
    mask_probability: float,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[MaskedBatch]:
    """All ``texts`` once, with plain masking that is the same every time; each of ``world`` processes gets a share."""
    plain = MaskingProbabilities(term=mask_probability, other=mask_probability)
    collator = MaskingCollator(texts, tokenizer, plain, seed=0)
    return _loader(collator, EvaluationBatches(texts.sizes, batch_size, rank, world), workers=0)


def _loader(collator: MaskingCollator, batches: Sampler[Batch], workers: int) -> DataLoader[MaskedBatch]:
    pinned = torch.cuda.is_available()
    return DataLoader(MaskedBatches(collator), sampler=batches, batch_size=None, num_workers=workers, pin_memory=pinned)
