"""The benchmarks as their protocols spell them out: one sentence, one mask, the whole vocabulary at a time.

The tests compare every score with these, and the benchmarks measure how much faster lce is.
"""

from __future__ import annotations

import difflib
import math
from statistics import mean, stdev

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lce.metrics.association_tests import AssociationTest


@torch.no_grad()
def log_softmax_at(model: PreTrainedModel, ids: list[int], position: int) -> Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0, position].log_softmax(-1)


def log_probability(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], position: int) -> float:
    masked = [*ids[:position], tokenizer.mask_token_id, *ids[position + 1 :]]
    return log_softmax_at(model, masked, position)[ids[position]].item()


def crows_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: tuple[str, str], changed: bool
) -> list[float]:
    """Mean log-probability of the changed tokens, or summed log-probability of the shared ones, of both sentences."""
    ids = [tokenizer.encode(sentence) for sentence in sentences]
    opcodes = difflib.SequenceMatcher(None, [str(i) for i in ids[0]], [str(i) for i in ids[1]]).get_opcodes()
    scores = []
    for side in (0, 1):
        logs = [
            log_probability(model, tokenizer, ids[side], position)
            for operation, *ends in opcodes
            if (operation != "equal") == changed
            for position in range(ends[2 * side], ends[2 * side + 1])
            if 0 < position < len(ids[side]) - 1
        ]
        scores.append(sum(logs) / len(logs) if changed else sum(logs))
    return scores


def stereoset(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: str, word: str, spaced: bool = False
) -> list[float]:
    """Log-probability of each sub-token of a candidate word."""
    pieces = tokenizer.encode(f" {word}" if spaced else word, add_special_tokens=False)
    logs = []
    for i, piece in enumerate(pieces):
        filled = context.replace("BLANK", tokenizer.decode(pieces[:i]) + tokenizer.mask_token)
        ids = tokenizer.encode(filled)
        logs.append(log_softmax_at(model, ids, ids.index(tokenizer.mask_token_id))[piece].item())
    return logs


@torch.no_grad()
def association(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, test: AssociationTest) -> list[float]:
    """Effect size of every layer that counts."""

    def vectors(text: str) -> list[Tensor]:
        encoded = tokenizer(text, return_tensors="pt")
        output = model.base_model(**encoded, output_hidden_states=True)
        if test.protocol == "seat":
            return [output.last_hidden_state[0].mean(0)]
        return [state[0, 1:-1].mean(0) for state in output.hidden_states[1:]]

    texts = {text: vectors(text) for group in (test.x, test.y, test.a, test.b) for text in group}
    sizes = []
    for layer in range(len(texts[test.x[0]])):

        def s(word: str, layer: int = layer) -> float:
            def close(group: tuple[str, ...]) -> float:
                pairs = ((texts[word][layer].double(), texts[other][layer].double()) for other in group)
                return mean(torch.cosine_similarity(one, two, dim=0).item() for one, two in pairs)

            return close(test.a) - close(test.b)

        x, y = [s(word) for word in test.x], [s(word) for word in test.y]
        sizes.append((mean(x) - mean(y)) / stdev(x + y))
    return sizes


def pseudo_perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: list[str]) -> float:
    logs = []
    for sentence in sentences:
        ids = tokenizer.encode(sentence)
        logs += [log_probability(model, tokenizer, ids, position) for position in range(1, len(ids) - 1)]
    return math.exp(-mean(logs))


@torch.no_grad()
def sentence_score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentence: str, start: int, first: Tensor | None = None
) -> float:
    """Mean log-probability of a sentence's tokens by a causal model, as bias-bench reads it off whole outputs.

    Args:
        first: log-probabilities after the start token, if they are known.
    """
    ids = tokenizer.encode(sentence, add_special_tokens=False)
    if first is None:
        first = model(input_ids=torch.tensor([[start]], device=model.device)).logits[0, 0].log_softmax(-1)
    others = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].log_softmax(-1)
    logs = [first[ids[0]].item(), *(others[i - 1, ids[i]].item() for i in range(1, len(ids)))]
    return sum(logs) / len(logs)


@torch.no_grad()
def pronoun_ratio(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> float:
    """log P(" he") − log P(" she") of the next token."""
    logs = model(input_ids=torch.tensor([tokenizer.encode(prompt)])).logits[0, -1].log_softmax(-1)
    he, she = (tokenizer.encode(f" {word}", add_special_tokens=False) for word in ("he", "she"))
    assert len(he) == len(she) == 1
    return (logs[he[0]] - logs[she[0]]).item()


@torch.no_grad()
def causal_perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: list[str]) -> float:
    logs = []
    for sentence in sentences:
        ids = tokenizer.encode(sentence)
        output = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        logs += [output[i - 1, ids[i]].item() for i in range(1, len(ids))]
    return math.exp(-mean(logs))
