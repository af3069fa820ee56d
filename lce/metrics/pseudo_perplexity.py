"""Pseudo-perplexity: every token of a sentence masked alone (Salazar et al. 2020).

Dearer than the perplexity that training minimises, and without any chance in what is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lce.data.encoding import EncodedTexts
from lce.metrics.perplexity import Perplexity
from lce.metrics.scoring import TokenBudget, log_probabilities, one_by_one

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHUNK = 500
"""Sentences whose masked copies are in memory together."""


def pseudo_perplexity(
    model: PreTrainedModel,
    texts: EncodedTexts,
    sentences: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    budget: TokenBudget,
) -> Perplexity:
    """exp of the mean over all tokens, but special ones, of −log P(token | the rest of its sentence)."""
    special = set(tokenizer.all_special_ids)
    metric = Perplexity("pseudo_perplexity", {"sentence": sentences})
    for start in range(0, len(texts), CHUNK):
        numbers = range(start, min(start + CHUNK, len(texts)))
        each = []
        for i in numbers:
            ids = texts[i][0].tolist()
            positions = [p for p, token in enumerate(ids) if token not in special]
            each.append(one_by_one(ids, positions, tokenizer.mask_token_id))
        sizes = [len(queries) for queries in each]
        queries = [query for group in each for query in group]
        logs = log_probabilities(model, queries, tokenizer.pad_token_id, budget, "pseudo-perplexity")
        metric.update(
            item=torch.tensor(numbers),
            loss=torch.stack([-part.sum() for part in logs.split(sizes)]),
            tokens=torch.tensor(sizes),
        )
    return metric
