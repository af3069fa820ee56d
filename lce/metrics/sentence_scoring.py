"""How likely a causal model finds whole sentences: the protocol of bias-bench (Meade et al. 2022) for such models.

A sentence scores the mean over all its tokens of log P(token | what is left of it). The first token's probability is
read after the start token alone; the others are conditioned on the sentence without the start token, a peculiarity of
the published code on which published numbers rest.

Sentences that are compared begin alike. Each set of them is one row, the common beginning and then what follows it in
each, with an attention mask that keeps the continuations apart: the same numbers, the beginning computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from lce.data.encoding import padding_id
from lce.foundations.errors import LceError
from lce.metrics.scoring import Query, TokenBudget, check_length, evaluating, log_probabilities, padded
from lce.models.logits import log_probabilities_at, takes_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Sentence = tuple[int, ...]
"""Token ids, without special tokens."""


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token after which a text begins: bos if the tokenizer has one, else eos, else padding."""
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    return next(int(number) for number in ids if number is not None)


def sentence_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, title: str) -> list[Sentence]:
    """Token ids of each text without special tokens; LceError for one that is empty or longer than the model takes."""
    found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    for text, ids in zip(texts, found, strict=True):
        check_length(ids, tokenizer, f"{title}, {text!r}")
        if not ids:
            raise LceError(f"{title}: {text!r} has no token")
    return [tuple(ids) for ids in found]


class Target(NamedTuple):
    """A token that the state at ``place`` of a row predicts, and which sentences of the set it counts for."""

    place: int
    token: int
    sentences: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A set of sentences with a common beginning.

    Attributes:
        ids: the beginning and then all continuations.
        positions: of each token in its sentence.
        branches: 0 for the beginning, else the number of the continuation.
        targets: all tokens but the sentences' first ones.
    """

    ids: list[int]
    positions: list[int]
    branches: list[int]
    targets: list[Target]


def row_of(sentences: Sequence[Sentence], numbers: Sequence[int]) -> Row:
    """The ``sentences`` of a set, of which no two are the same, as one row; ``numbers`` are what targets call them."""
    shared = 0
    if len(sentences) > 1:
        while all(len(s) > shared and s[shared] == sentences[0][shared] for s in sentences):
            shared += 1
    row = Row(list(sentences[0][:shared]), list(range(shared)), [0] * shared, [])
    row.targets.extend(Target(i - 1, sentences[0][i], tuple(numbers)) for i in range(1, shared))
    for branch, (number, sentence) in enumerate(zip(numbers, sentences, strict=True), 1):
        for i in range(shared, len(sentence)):
            before = len(row.ids) - 1 if i > shared else shared - 1
            if i:
                row.targets.append(Target(before, sentence[i], (number,)))
            row.ids.append(sentence[i])
            row.positions.append(i)
            row.branches.append(branch)
    return row


def sentence_scores(
    model: PreTrainedModel,
    sets: Sequence[Sequence[Sentence]],
    tokenizer: PreTrainedTokenizerBase,
    budget: TokenBudget,
    title: str,
) -> list[list[float]]:
    """Mean log-probability of the tokens of each sentence [nats], set by set.

    Args:
        sets: sentences that are compared, whose common beginnings are computed once.
    """
    start, pad_id = start_token(tokenizer), padding_id(tokenizer)
    numbers: dict[Sentence, int] = {}
    rows = []
    together = takes_rows(model)
    for one in sets:
        new = [sentence for sentence in dict.fromkeys(one) if sentence not in numbers]
        numbers |= {sentence: len(numbers) + i for i, sentence in enumerate(new)}
        for group in [new] if together else [[sentence] for sentence in new]:
            if group:
                rows.append(row_of(group, [numbers[sentence] for sentence in group]))
    sums = torch.zeros(len(numbers), dtype=torch.float64)
    first = [Query((start,), 0, sentence[0]) for sentence in numbers]
    sums += log_probabilities(model, first, pad_id, budget, title)

    def work(batch: list[int]) -> None:
        chosen = [rows[i] for i in batch]
        ids, attention = padded([row.ids for row in chosen], pad_id, model.device)
        length = ids.shape[1]
        targets = [(n * length + t.place, t.token, t.sentences) for n, row in enumerate(chosen) for t in row.targets]
        if targets:
            places, tokens = (torch.tensor([t[i] for t in targets], device=model.device) for i in (0, 1))
            more = _branched(chosen, attention, model.dtype) if together else {"attention_mask": attention}
            logs = log_probabilities_at(model, ids, places=places, tokens=tokens, **more).double().cpu()
            counts = torch.tensor([len(t[2]) for t in targets])
            owners = torch.tensor([number for t in targets for number in t[2]])
            sums.index_add_(0, owners, logs.repeat_interleave(counts))
        bar.update(len(batch))

    with evaluating(model), tqdm(total=len(rows), desc=title, leave=False, unit="set", delay=2, disable=None) as bar:
        budget.run([len(row.ids) for row in rows], model.device, work)
    means = {sentence: float(sums[number]) / len(sentence) for sentence, number in numbers.items()}
    return [[means[sentence] for sentence in one] for one in sets]


def _branched(rows: Sequence[Row], attention: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Positions (rows, length), and an additive attention mask (rows, 1, length, length).

    A token sees those before it in its own branch and in the beginning.
    """
    device = attention.device
    positions, _ = padded([row.positions for row in rows], 0, device)
    branches, _ = padded([row.branches for row in rows], -1, device)
    length = attention.shape[1]
    is_before = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    is_same = (branches[:, None, :] == branches[:, :, None]) | (branches[:, None, :] == 0)
    seen = is_before & is_same & attention[:, None, :].bool()
    seen |= torch.eye(length, dtype=torch.bool, device=device)  # padding sees itself: a row of no token has no mean
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)
    return {"attention_mask": mask.unsqueeze(1), "position_ids": positions}
