"""The LightningDataModule: masked, length-bucketed batches for training, and fixed ones for evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from lce.data.batches import EvaluationBatches, MaskedBatches, TrainingBatches
from lce.data.cda import Annotation, Variant, render
from lce.data.encoding import EncodedTexts
from lce.data.masking import MaskedBatch, MaskingCollator, MaskingProbabilities, masking_probabilities
from lce.errors import LceError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES: dict[str, tuple[str, ...]] = {
    "stereotypical": ("biased", "neutral"),
    "anti-stereotypical": ("biased", "neutral"),
    "neutral": ("control",),
}


def read_examples(path: str | Path, variant: Variant | None, evaluation: bool) -> tuple[list[str], list[str]]:
    """Texts of one side of the split as they stand in ``variant``, and the sentences they were made from.

    Without a ``variant``: the biased and neutral sentences as their authors wrote them.
    """
    if not Path(path).exists():
        raise LceError(f"{path}: no such file; `lce data` with the same configuration makes it")
    roles = ROLES[variant or "stereotypical"]
    texts, sources = [], []
    for row in pq.read_table(path).to_pylist():
        if row["evaluation"] != evaluation or row["role"] not in roles:
            continue
        kind = "biased" if row["role"] == "biased" else "neutral"
        found = Annotation(kind, row["target_group"], row["attribute_group"], row["counterfactual"])
        sources.append(row["text"])
        texts.append(render(row["text"], found, variant) if variant else row["text"])
    if not texts:
        raise LceError(f"{path}: no {'evaluation' if evaluation else 'training'} sentences of role {', '.join(roles)}")
    return texts, sources


class MaskedTextModule(L.LightningDataModule):
    """Batches of masked sentences.

    Args:
        train: encoded training sentences.
        evaluation: encoded held-out sentences; always masked alike, by plain masking.
        tokenizer: gives the mask token, and the ordinary tokens that replace some of the masked ones.
        batch_size: sentences per step, over all devices.
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
        self.probabilities = masking_probabilities(train, special_ids, term_probability, mask_probability)
        plain = MaskingProbabilities(term=mask_probability, other=mask_probability)
        self.train_batches = MaskedBatches(MaskingCollator(train, tokenizer, self.probabilities, seed))
        self.evaluation_batches = MaskedBatches(MaskingCollator(evaluation, tokenizer, plain, seed=0))
        self.batch_size, self.seed, self.steps, self.workers = batch_size, seed, steps, workers

    def train_dataloader(self) -> DataLoader[MaskedBatch]:
        trainer = self.trainer
        assert trainer is not None, "Lightning attaches the trainer before it asks for batches"
        accumulated = trainer.accumulate_grad_batches
        batches = TrainingBatches(
            self.train_batches.collator.corpus.sizes,
            self.batch_size,
            self.seed,
            steps=self.steps * accumulated,
            start=trainer.global_step * accumulated,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return _loader(self.train_batches, batches, self.workers)

    def val_dataloader(self) -> DataLoader[MaskedBatch]:
        trainer = self.trainer
        assert trainer is not None, "Lightning attaches the trainer before it asks for batches"
        corpus = self.evaluation_batches.collator.corpus
        batches = EvaluationBatches(corpus.sizes, self.batch_size, trainer.global_rank, trainer.world_size)
        return _loader(self.evaluation_batches, batches, self.workers)


def _loader(data: MaskedBatches, batches: TrainingBatches | EvaluationBatches, workers: int) -> DataLoader[MaskedBatch]:
    return DataLoader(
        data, sampler=batches, batch_size=None, num_workers=workers, pin_memory=torch.cuda.is_available()
    )
