from __future__ import annotations

import pytest
import torch
from masked_models import CONFIGS, VOCABULARY, tiny
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from lce.models.logits import DECODERS, LAST_MIXING, last_mixing_module, logits_at

SHAPES = ((2, 41, 82), (3, 7, 4), (1, 6, 6))
"""Sentences, tokens of each, and asked positions; the longest first, because a short one changes a BigBird."""


def asked(sentences: int, tokens: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Input ids, attention mask and positions."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(5, VOCABULARY, (sentences, tokens), generator=random)
    attention = torch.ones_like(ids)
    attention[1:2, tokens // 2 :] = 0
    return ids, attention, torch.randperm(sentences * tokens, generator=random)[:count]


@torch.no_grad()
def whole(model: PreTrainedModel, ids: Tensor, attention: Tensor, positions: Tensor) -> Tensor:
    """As `logits_at`, from all logits of the model."""
    return model(input_ids=ids, attention_mask=attention).logits.flatten(0, 1)[positions]


@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_are_gathered_as_early_as_they_can_be(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two places in the table, that of each type is the first one that gives the logits of the whole model."""
    right, close = [], {"rtol": 1e-4, "atol": 1e-4}
    for path in ("encoder.layer.{last}.attention", ""):
        model = tiny(kind)
        with monkeypatch.context() as patched, torch.no_grad():
            patched.setitem(LAST_MIXING, kind, path)
            if last_mixing_module(model) is None:
                continue
            try:
                for arguments in map(asked, *zip(*SHAPES, strict=True)):
                    torch.testing.assert_close(logits_at(model, *arguments), whole(model, *arguments), **close)
            except (RuntimeError, AssertionError, IndexError, TypeError, ValueError, AttributeError, KeyError):
                continue
        right.append(path)
    assert LAST_MIXING.get(kind) == next(iter(right), None)


def test_every_type_in_the_table_is_tested() -> None:
    assert set(LAST_MIXING) - set(DECODERS) <= set(CONFIGS)


def test_what_follows_the_last_attention_is_computed_at_the_asked_positions_only(model: BertForMaskedLM) -> None:
    assert last_mixing_module(model) is model.bert.encoder.layer[1].attention
    sizes = []
    model.bert.encoder.layer[1].intermediate.register_forward_hook(lambda m, i, output: sizes.append(output.shape[:2]))
    logits_at(model, *asked(3, 7, 4))
    whole(model, *asked(3, 7, 4))
    assert sizes == [(1, 4), (3, 7)], "the model is left as it was"


class Own(BertForMaskedLM):
    """Code of a model's own, under a known type."""


@pytest.mark.parametrize("layers", [0, 2])
def test_all_logits_of_an_unknown_model_are_computed(layers: int) -> None:
    config = BertConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2)
    model = (Own(config) if layers else BertForMaskedLM(config)).eval()
    assert last_mixing_module(model) is None
    arguments = asked(3, 7, 4)
    with torch.no_grad():
        torch.testing.assert_close(logits_at(model, *arguments), whole(model, *arguments))
