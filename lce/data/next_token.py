"""Next-token prediction in which the specification's terms weigh more.

A causal model masks nothing, so preferential masking becomes a weight of the loss: the tokens of terms weigh more, all
others less, such that the mean weight over the corpus is 1. Masking terms with a probability of 0.3 where the average
is 0.15 (Lutz et al. 2024) corresponds to a weight of 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from lce.data.collating import Asked, Collator
from lce.data.encoding import EncodedTexts
from lce.foundations.errors import LceError


class TermWeights(NamedTuple):
    """What the loss of a token counts, of those of terms and of all others."""

    term: float = 1.0
    other: float = 1.0


def term_weights(corpus: EncodedTexts, term: float) -> TermWeights:
    """The weights with which terms count ``term`` and all predicted tokens of ``corpus`` 1 on average.

    term · N_term + other · (N − N_term) = N, over all N tokens but the first of each text, which is not predicted.

    Raises:
        LceError: nothing would be left for the other tokens.
    """
    is_predicted = torch.ones(len(corpus.ids), dtype=torch.bool)
    is_predicted[corpus.offsets[:-1]] = False
    total, terms = int(is_predicted.sum()), int((corpus.is_term & is_predicted).sum())
    if terms == 0:
        return TermWeights(term=term)
    other = (total - term * terms) / max(total - terms, 1)
    if other < 0:
        raise LceError(
            f"train.term_weight: {term:g} is too high for a mean of 1: {terms:,} of {total:,} tokens are terms"
        )
    return TermWeights(term, other)


class NextTokenCollator(Collator):
    """Asks for every token of a text but the first."""

    def __init__(self, corpus: EncodedTexts, pad_id: int, weights: TermWeights | None = None) -> None:
        super().__init__(corpus, pad_id)
        self.weights = weights or TermWeights()

    def ask(self, epoch: int, index: int) -> Asked:
        ids, is_term = self.corpus[index]
        weights = torch.where(is_term[1:], self.weights.term, self.weights.other)
        return Asked(ids, torch.arange(len(ids) - 1), ids[1:], weights)

    def count(self, epoch: int, index: int) -> int:
        return len(self.corpus[index][0]) - 1
