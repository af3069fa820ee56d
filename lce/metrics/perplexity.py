"""Perplexity of a masked language model: exp of the mean loss over the masked tokens."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lce.metrics import significance
from lce.metrics.items import DRAWS, ItemMetric, Score, random

CELLS = 2_000_000
"""Resampled sentences, over all draws, that are in memory together."""


class Perplexity(ItemMetric):
    """exp(Σ loss / Σ tokens); right over batches of different sizes and over processes.

    Columns: summed loss [nats] and number of predicted tokens of each sentence.
    """

    columns = ("item", "loss", "tokens")

    def compute(self) -> Tensor:
        loss, tokens = (dim_zero_cat(getattr(self, column)) for column in ("loss", "tokens"))
        return torch.exp(loss.sum() / tokens.sum())

    def scores(self) -> dict[str, Score]:
        rows = self.items()
        loss, tokens = rows["loss"].astype(float), rows["tokens"]
        source, n = random(), len(loss)
        drawn = []
        step = max(1, CELLS // n)
        for start in range(0, DRAWS, step):
            chosen = source.integers(n, size=(min(step, DRAWS - start), n), dtype=np.int32)
            with np.errstate(invalid="ignore"):
                drawn.append(np.exp(loss[chosen].sum(1) / tokens[chosen].sum(1)))
        value = float(np.exp(loss.sum() / tokens.sum()))
        return {self.name: Score(value, int(tokens.sum()), np.concatenate(drawn), {"sentences": n})}

    def tests(self, other: Self) -> dict[str, list[dict[str, Any]]]:
        first, second = self.items(), other.items()
        counted = first["tokens"] > 0
        one, two = (rows["loss"][counted] / rows["tokens"][counted] for rows in (first, second))
        return {self.name: [significance.wilcoxon(one, two, of="mean loss of a sentence")]}
