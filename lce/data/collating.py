"""Batches of sentences, padded, with the positions whose tokens a model is to predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lce.data.encoding import EncodedTexts


class TokenBatch(NamedTuple):
    """A padded batch of B sentences of at most L tokens with M positions at which a token is predicted.

    ``input_ids`` and ``attention_mask`` are (B, L); ``positions`` (M,) are flat indices into B · L of the logits that
    count, ``labels`` (M,) the tokens they are to predict, and ``weights`` (M,) what each loss counts in training.
    ``items`` (B,) are the sentences' indices in the corpus. Where a step's batch is divided into shares, ``mean_count``
    (scalar) is the mean of M over all of them: summed losses divided by it average to the mean loss of the whole step.
    """

    input_ids: Tensor
    attention_mask: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor
    items: Tensor
    mean_count: Tensor


class Asked(NamedTuple):
    """What is asked about one text: its ``ids`` as the model sees them (length,), and what it predicts where, (m,)."""

    ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor


class Collator(ABC):
    """Pads the texts of a corpus to batches; what is asked depends on the seed, the epoch and the text's index alone.

    Args:
        corpus: the texts.
        pad_id: the token that fills a row up; its attention mask is 0.
    """

    def __init__(self, corpus: EncodedTexts, pad_id: int) -> None:
        self.corpus, self.pad_id = corpus, pad_id

    @abstractmethod
    def ask(self, epoch: int, index: int) -> Asked:
        """What is asked about text ``index``."""

    @abstractmethod
    def count(self, epoch: int, index: int) -> int:
        """How many tokens of text ``index`` are to be predicted."""

    def __call__(self, epoch: int, step: Sequence[int], share: int = 0, shares: int = 1) -> TokenBatch:
        """The ``share`` of the sentences of a ``step``, one of ``shares``."""
        indices = step[share::shares]
        texts = [self.ask(epoch, index) for index in indices]
        length = max(len(text.ids) for text in texts)
        input_ids = torch.full((len(texts), length), self.pad_id, dtype=torch.int64)
        attention_mask = torch.zeros_like(input_ids)
        for row, text in enumerate(texts):
            input_ids[row, : len(text.ids)] = text.ids
            attention_mask[row, : len(text.ids)] = 1
        count = sum(len(text.labels) for text in texts)
        count += sum(self.count(epoch, index) for index in set(step) - set(indices))
        return TokenBatch(
            input_ids,
            attention_mask,
            torch.cat([text.positions + row * length for row, text in enumerate(texts)]),
            torch.cat([text.labels for text in texts]).long(),
            torch.cat([text.weights for text in texts]),
            items=torch.tensor(indices),
            mean_count=torch.tensor(max(count, 1) / shares),
        )
