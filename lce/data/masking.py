"""Masked language modelling with preferential masking.

Tokens of the specification's terms are masked with a higher probability of their own, all others with one
that is lowered so that the average share of masked tokens over the corpus is that of plain masking
(Lutz et al. 2024: 0.3 and 0.148 for an average of 0.15). Of the masked tokens 80 % become [MASK], 10 % a
random token, 10 % stay (Devlin et al. 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lce.checks import check_probability
from lce.data.encoding import EncodedTexts
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class MaskedBatch(NamedTuple):
    """A padded batch of B sentences of at most L tokens with M masked positions.

    ``input_ids`` and ``attention_mask`` are (B, L); ``positions`` (M,) are flat indices into B · L, and
    ``labels`` (M,) the original tokens there. ``items`` (B,) are the sentences' indices in the corpus. Where a step's
    batch is divided into shares, ``mean_count`` (scalar) is the mean of M over all of them: summed losses divided by
    it average to the mean loss of the whole step.
    """

    input_ids: Tensor
    attention_mask: Tensor
    positions: Tensor
    labels: Tensor
    items: Tensor
    mean_count: Tensor


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


class MaskingCollator:
    """Pads and masks; what is masked in a text depends on the seed, the epoch and the text's index alone."""

    def __init__(
        self, corpus: EncodedTexts, tokenizer: PreTrainedTokenizerBase, probabilities: MaskingProbabilities, seed: int
    ) -> None:
        self.corpus = corpus
        self.probabilities = probabilities
        self.seed = seed
        self.special_ids = torch.tensor(sorted(tokenizer.all_special_ids), dtype=torch.int32)
        self.ordinary_ids = torch.tensor(
            sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)), dtype=torch.int32
        )
        self.mask_id = tokenizer.mask_token_id
        self.pad_id = tokenizer.pad_token_id

    def __call__(self, epoch: int, step: Sequence[int], share: int = 0, shares: int = 1) -> MaskedBatch:
        """The ``share`` of the sentences of a ``step``, one of ``shares``."""
        indices = step[share::shares]
        texts = [self.corpus[index] for index in indices]
        length = max(len(ids) for ids, _ in texts)
        input_ids = torch.full((len(texts), length), self.pad_id, dtype=torch.int64)
        attention_mask = torch.zeros_like(input_ids)
        positions, labels = [], []
        for row, (index, (ids, is_term)) in enumerate(zip(indices, texts, strict=True)):
            masked, chosen = self.mask(ids, is_term, epoch, index)
            input_ids[row, : len(ids)] = masked
            attention_mask[row, : len(ids)] = 1
            positions.append(chosen + row * length)
            labels.append(ids[chosen])
        count = sum(map(len, labels))
        for index in set(step) - set(indices):
            count += len(self.mask(*self.corpus[index], epoch, index)[1])
        return MaskedBatch(
            input_ids,
            attention_mask,
            torch.cat(positions),
            torch.cat(labels).long(),
            items=torch.tensor(indices),
            mean_count=torch.tensor(max(count, 1) / shares),
        )

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
