"""Log-probabilities of tokens at masked positions, for many short sentences at once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lce.foundations.errors import LceError
from lce.models.logits import logits_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PROCESSOR_TOKENS, ACCELERATOR_TOKENS = 2048, 65_536


class Query(NamedTuple):
    """The probability of ``token`` at ``position`` of the sentence ``ids``, which has the mask token there."""

    ids: tuple[int, ...]
    position: int
    token: int


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout and gradients off; the model's mode is put back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def token_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices by falling length, in batches of at most ``tokens`` tokens with padding, or of a single sentence."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches, start = [], 0
    while start < len(order):
        size = max(1, tokens // lengths[order[start]])
        batches.append(order[start : start + size])
        start += size
    return batches


class TokenBudget:
    """How many tokens a batch may hold, padding included; halved whenever an accelerator's memory runs out.

    Args:
        tokens: the bound; by default what suits the device.
    """

    def __init__(self, tokens: int | None = None) -> None:
        if tokens is not None and tokens < 1:
            raise LceError(f"evaluation.tokens_per_batch: expected a positive number, got {tokens}")
        self.tokens = tokens

    def run(self, lengths: Sequence[int], device: torch.device, work: Callable[[list[int]], None]) -> None:
        """Call ``work`` with the indices of one batch after the other, until all ``lengths`` are done.

        Raises:
            LceError: one sentence alone does not fit the memory.
        """
        if self.tokens is None:
            self.tokens = PROCESSOR_TOKENS if device.type == "cpu" else ACCELERATOR_TOKENS
        batches = deque(token_batches(lengths, self.tokens))
        while batches:
            if _fits_memory(work, batches[0]):
                batches.popleft()
                continue
            if len(batches[0]) == 1:
                raise LceError(f"{device}: out of memory on one sentence of {lengths[batches[0][0]]} tokens")
            torch.cuda.empty_cache()
            self.tokens = max(1, self.tokens // 2)
            log.warning("%s: out of memory; continuing with %s tokens per batch", device, f"{self.tokens:,}")
            left = [i for batch in batches for i in batch]
            smaller = token_batches([lengths[i] for i in left], self.tokens)
            batches = deque([left[i] for i in batch] for batch in smaller)


def _fits_memory(work: Callable[[list[int]], None], batch: list[int]) -> bool:
    try:
        work(batch)
    except torch.OutOfMemoryError:
        return False
    return True


def padded(sentences: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Input ids and attention mask, both (sentences, longest), padded on the right."""
    length = max(map(len, sentences))
    ids = torch.tensor([[*sentence, *[pad_id] * (length - len(sentence))] for sentence in sentences])
    lengths = torch.tensor([[len(sentence)] for sentence in sentences])
    return ids.to(device), (torch.arange(length) < lengths).long().to(device)


def check_length(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Raises LceError if a sentence is longer than the model that ``tokenizer`` was loaded with takes."""
    if len(ids) > tokenizer.model_max_length:
        raise LceError(f"{where}: has {len(ids):,} tokens, but the model takes at most {tokenizer.model_max_length:,}")


def log_probabilities(
    model: PreTrainedModel, queries: Sequence[Query], pad_id: int, budget: TokenBudget, title: str
) -> Tensor:
    """Natural log-probability of each query's token, shape (queries,), float64, on the CPU.

    Queries that share a sentence and position share one forward pass, and only the masked position is decoded.
    """
    inputs: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for i, query in enumerate(queries):
        inputs.setdefault((query.ids, query.position), []).append(i)
    distinct = list(inputs)
    result = torch.empty(len(queries), dtype=torch.float64)

    def work(batch: list[int]) -> None:
        ids, attention = padded([distinct[i][0] for i in batch], pad_id, model.device)
        positions = torch.tensor([row * ids.shape[1] + distinct[i][1] for row, i in enumerate(batch)])
        logits = logits_at(model, ids, attention, positions.to(model.device)).float()
        rows = torch.tensor([row for row, i in enumerate(batch) for _ in inputs[distinct[i]]])
        asked = torch.tensor([q for i in batch for q in inputs[distinct[i]]])
        tokens = torch.tensor([queries[q].token for q in asked.tolist()])
        rows, tokens = rows.to(model.device), tokens.to(model.device)
        result[asked] = (logits[rows, tokens] - logits.logsumexp(-1)[rows]).double().cpu()
        bar.update(len(batch))

    with (
        evaluating(model),
        tqdm(total=len(distinct), desc=title, leave=False, unit="input", delay=2, disable=None) as bar,
    ):
        budget.run([len(ids) for ids, _ in distinct], model.device, work)
    return result


def one_by_one(ids: Sequence[int], positions: Sequence[int], mask_id: int) -> list[Query]:
    """A query for the token at each of ``positions``, masked alone."""
    return [Query((*ids[:p], mask_id, *ids[p + 1 :]), p, ids[p]) for p in positions]
