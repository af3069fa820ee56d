"""Perplexity: exp of the mean loss over the masked tokens of a masked model, or all next tokens of a causal one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.utilities import dim_zero_cat

from lce.data.collating import TokenBatch
from lce.metrics import significance
from lce.metrics.items import RESAMPLES, ItemMetric, Score, random
from lce.models.logits import log_probabilities_at, logits_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CELLS = 2_000_000
"""Resampled sentences, over all resamples, that are in memory together."""


def token_losses(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Cross-entropy at each of the M positions that are asked for [nats], shape (M,)."""
    if not torch.is_grad_enabled():
        return -log_probabilities_at(model, batch.input_ids, batch.attention_mask, batch.positions, batch.labels)
    logits = logits_at(model, batch.input_ids, batch.attention_mask, batch.positions)
    return cross_entropy(logits.float(), batch.labels, reduction="none")


class Perplexity(ItemMetric):
    """exp(Σ loss / Σ tokens); right over batches of different sizes and over processes.

    Columns: summed loss [nats] and number of predicted tokens of each sentence.
    """

    columns = ("item", "loss", "tokens")

    def add(self, batch: TokenBatch, losses: Tensor) -> None:
        """Add one row per sentence of ``batch``, given the ``losses`` (M,) at its positions."""
        row = batch.positions // batch.input_ids.shape[1]
        per_sentence = losses.new_zeros(len(batch.items)).index_add(0, row, losses)
        tokens = row.bincount(minlength=len(batch.items))
        self.update(item=batch.items, loss=per_sentence, tokens=tokens)

    def compute(self) -> Tensor:
        loss, tokens = (dim_zero_cat(getattr(self, column)) for column in ("loss", "tokens"))
        return torch.exp(loss.sum() / tokens.sum())

    def scores(self) -> dict[str, Score]:
        rows = self.items()
        loss, tokens = rows["loss"].astype(float), rows["tokens"]
        source, n = random(), len(loss)
        resampled = []
        step = max(1, CELLS // n)
        for start in range(0, RESAMPLES, step):
            chosen = source.integers(n, size=(min(step, RESAMPLES - start), n), dtype=np.int32)
            with np.errstate(invalid="ignore"):
                resampled.append(np.exp(loss[chosen].sum(1) / tokens[chosen].sum(1)))
        value = float(np.exp(loss.sum() / tokens.sum()))
        return {self.name: Score(value, int(tokens.sum()), np.concatenate(resampled), {"sentences": n})}

    def tests(self, other: Self) -> dict[str, list[dict[str, Any]]]:
        first, second = self.items(), other.items()
        counted = first["tokens"] > 0
        one, two = (rows["loss"][counted] / rows["tokens"][counted] for rows in (first, second))
        return {self.name: [significance.wilcoxon(one, two, of="mean loss of a sentence")]}
