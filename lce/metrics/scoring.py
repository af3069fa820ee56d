"""Log-probabilities of tokens at masked positions, for many short sentences at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lce.models import masked_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


def token_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices by falling length, in batches of at most ``tokens`` tokens with their padding (at least one each)."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def padded(sentences: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Input ids and attention mask, both (sentences, longest), padded on the right."""
    length = max(map(len, sentences))
    ids = torch.tensor([[*sentence, *[pad_id] * (length - len(sentence))] for sentence in sentences])
    lengths = torch.tensor([[len(sentence)] for sentence in sentences])
    return ids.to(device), (torch.arange(length) < lengths).long().to(device)


def log_probabilities(
    model: PreTrainedModel, queries: Sequence[Query], pad_id: int, tokens_per_batch: int, title: str
) -> Tensor:
    """Natural log-probability of each query's token, shape (queries,), float64, on the CPU.

    Queries that share a sentence and position share one forward pass, and only the masked position is decoded.
    """
    inputs: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for i, query in enumerate(queries):
        inputs.setdefault((query.ids, query.position), []).append(i)
    distinct = list(inputs)
    result = torch.empty(len(queries), dtype=torch.float64)
    device = model.device
    with (
        evaluating(model),
        tqdm(total=len(distinct), desc=title, leave=False, unit="input", delay=2, disable=None) as bar,
    ):
        for batch in token_batches([len(ids) for ids, _ in distinct], tokens_per_batch):
            ids, attention = padded([distinct[i][0] for i in batch], pad_id, device)
            positions = torch.tensor([row * ids.shape[1] + distinct[i][1] for row, i in enumerate(batch)])
            logits = masked_logits(model, ids, attention, positions.to(device)).float().cpu()
            rows = torch.tensor([row for row, i in enumerate(batch) for _ in inputs[distinct[i]]])
            asked = torch.tensor([q for i in batch for q in inputs[distinct[i]]])
            tokens = torch.tensor([queries[q].token for q in asked.tolist()])
            result[asked] = (logits[rows, tokens] - logits.logsumexp(-1)[rows]).double()
            bar.update(len(batch))
    return result
