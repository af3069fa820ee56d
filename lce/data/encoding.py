"""Sentences as token ids, with the tokens that belong to a term of the specification marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lce.data.specification import BiasSpecification

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 4096


@dataclass(frozen=True)
class EncodedTexts:
    """Texts of different lengths, stored end to end.

    ``ids`` and ``is_term`` have one entry per token (int32, bool), ``offsets`` one per text and one more
    (int64); text i is ``ids[offsets[i]:offsets[i + 1]]``, special tokens included. ``sizes`` (int64), by which
    batches are bucketed, count the tokens of the source sentences, which counterfactual variants share.
    """

    ids: Tensor
    is_term: Tensor
    offsets: Tensor
    sizes: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Ids and term marks of text ``index``, both of shape (length,)."""
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.ids[start:end], self.is_term[start:end]


def encode(
    texts: Sequence[str],
    sources: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    spec: BiasSpecification | None,
    max_length: int,
) -> EncodedTexts:
    """Tokenize ``texts``, cut at ``max_length`` tokens, and mark every sub-token of every term of ``spec``.

    ``sources`` are the sentences before augmentation; without a ``spec`` nothing is marked.
    """
    ids: list[int] = []
    marks: list[bool] = []
    offsets = [0]
    sizes: list[int] = []
    for start in range(0, len(texts), CHUNK):
        chunk, originals = list(texts[start : start + CHUNK]), list(sources[start : start + CHUNK])
        encoded = tokenizer(chunk, truncation=True, max_length=max_length, return_offsets_mapping=True)
        unchanged = encoded if chunk == originals else tokenizer(originals, truncation=True, max_length=max_length)
        sizes += map(len, unchanged["input_ids"])
        for text, tokens, spans in zip(chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ids += tokens
            marks += _term_tokens(text, spans, spec) if spec else [False] * len(tokens)
            offsets.append(len(ids))
    return EncodedTexts(
        ids=torch.tensor(ids, dtype=torch.int32),
        is_term=torch.tensor(marks, dtype=torch.bool),
        offsets=torch.tensor(offsets),
        sizes=torch.tensor(sizes),
    )


def _term_tokens(text: str, spans: list[tuple[int, int]], spec: BiasSpecification) -> list[bool]:
    terms = list(spec.find(text))
    return [any(a < term.end and b > term.start for term in terms) for a, b in spans]


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills rows up, whatever it is: attention masks leave it out, and many decoders have none."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(number) for number in ids if number is not None)
