"""Pseudo-perplexity: every token of a sentence masked alone (Salazar et al. 2020).

It is more expensive than the perplexity that training minimises, and depends on no random choice of what is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lce.metrics.perplexity import Perplexity
from lce.metrics.scoring import TokenBudget, log_probabilities, one_by_one

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS_IN_MEMORY = 2_000_000
"""Tokens of all masked copies that are in memory together."""


class PseudoPerplexityScorer:
    """Sentences, tokenized once and cut at ``max_length`` tokens, to be put to any number of models."""

    def __init__(self, sentences: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.sentences = sentences
        self.pad_id, self.mask_id = tokenizer.pad_token_id, tokenizer.mask_token_id
        encoded = tokenizer(list(sentences), truncation=True, max_length=max_length, return_special_tokens_mask=True)
        self.ids: list[list[int]] = encoded["input_ids"]
        self.positions = [[p for p, mark in enumerate(marks) if not mark] for marks in encoded["special_tokens_mask"]]

    def score(self, model: PreTrainedModel, budget: TokenBudget) -> Perplexity:
        """exp of the mean over all tokens, except added special ones, of −log P(token | the rest of its sentence)."""
        metric = Perplexity("pseudo_perplexity", {"sentence": self.sentences})
        together = max(1, TOKENS_IN_MEMORY // max(map(len, self.ids)) ** 2)
        for start in range(0, len(self.ids), together):
            part = slice(start, start + together)
            each = [
                one_by_one(ids, positions, self.mask_id)
                for ids, positions in zip(self.ids[part], self.positions[part], strict=True)
            ]
            queries = [query for group in each for query in group]
            logs = log_probabilities(model, queries, self.pad_id, budget, "pseudo-perplexity")
            sizes = [len(group) for group in each]
            metric.update(
                item=torch.arange(start, start + len(each)),
                loss=torch.stack([-log.sum() for log in logs.split(sizes)]),
                tokens=torch.tensor(sizes),
            )
        return metric
