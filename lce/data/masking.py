"""Masked language modelling with preferential masking.

Tokens of the specification's terms are masked with a higher probability of their own, all others with one
that is lowered so that the average share of masked tokens over the corpus is that of plain masking
(Lutz et al. 2024: 0.3 and 0.148 for an average of 0.15). Of the masked tokens 80 % become [MASK], 10 % a
random token, 10 % stay (Devlin et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lce.checks import check_probability
from lce.data.collating import Asked, Collator
from lce.data.encoding import EncodedTexts
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class MaskingProbabilities:
    """Probability of being masked, for tokens of terms and for all others but the special ones."""

    term: float
    other: float


def masking_probabilities(
    corpus: EncodedTexts, special_ids: Tensor, term: float, average: float
) -> MaskingProbabilities:
    """The probabilities with which an ``average`` share of the tokens of ``corpus`` is masked.

    average · N = term · N_term + other · (N − N_term), over the N tokens that are not special.

    Raises:
        LceError: a probability is outside (0, 1), or terms alone use up the average.
    """
    for name, value in (("term_probability", term), ("mask_probability", average)):
        check_probability(value, f"train.{name}")
    total = int((~torch.isin(corpus.ids, special_ids)).sum())
    terms = int(corpus.is_term.sum())
    if terms == 0:
        return MaskingProbabilities(term=term, other=average)
    other = (average * total - term * terms) / max(total - terms, 1)
    if not 0 <= other <= 1:
        raise LceError(
            f"train.term_probability: {term} is too high for an average of {average}: "
            f"{terms:,} of {total:,} tokens are terms"
        )
    return MaskingProbabilities(term=term, other=other)


class MaskingCollator(Collator):
    """Asks for the masked tokens of a text."""

    def __init__(
        self, corpus: EncodedTexts, tokenizer: PreTrainedTokenizerBase, probabilities: MaskingProbabilities, seed: int
    ) -> None:
        super().__init__(corpus, tokenizer.pad_token_id)
        self.probabilities = probabilities
        self.seed = seed
        self.special_ids = torch.tensor(sorted(tokenizer.all_special_ids), dtype=torch.int32)
        self.ordinary_ids = torch.tensor(
            sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)), dtype=torch.int32
        )
        self.mask_id = tokenizer.mask_token_id

    def ask(self, epoch: int, index: int) -> Asked:
        ids, is_term = self.corpus[index]
        masked, chosen = self.mask(ids, is_term, epoch, index)
        return Asked(masked, chosen, ids[chosen], torch.ones(len(chosen)))

    def count(self, epoch: int, index: int) -> int:
        return len(self.ask(epoch, index).positions)

    def mask(self, ids: Tensor, is_term: Tensor, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """``ids`` (length,) with the masking applied, and the chosen positions in ascending order."""
        random = generator(self.seed, "masking", epoch, index)
        uniform = torch.rand(2, len(ids), generator=random)
        substitutes = self.ordinary_ids[torch.randint(len(self.ordinary_ids), ids.shape, generator=random)]
        chance = torch.where(is_term, self.probabilities.term, self.probabilities.other)
        chosen = (uniform[0] < chance) & ~torch.isin(ids, self.special_ids)
        masked = torch.where(chosen & (uniform[1] < 0.8), self.mask_id, ids)
        masked = torch.where(chosen & (uniform[1] >= 0.9), substitutes, masked)
        return masked, chosen.nonzero().flatten()
