from __future__ import annotations

import math
from pathlib import Path

import literal
import pytest
import torch
from conftest import own_sentences
from transformers import BertForMaskedLM, BertTokenizer

from lce.data.module import read_text
from lce.foundations.errors import LceError
from lce.metrics.items import differences
from lce.metrics.perplexity import Perplexity
from lce.metrics.pseudo_perplexity import PseudoPerplexityScorer
from lce.metrics.scoring import TokenBudget


def perplexity(*batches: tuple[list[float], list[int]]) -> Perplexity:
    metric = Perplexity("perplexity")
    start = 0
    for losses, tokens in batches:
        items = torch.arange(start, start + len(losses))
        metric.update(item=items, loss=torch.tensor(losses), tokens=torch.tensor(tokens))
        start += len(losses)
    return metric


def test_the_mean_is_over_tokens_not_over_batches() -> None:
    metric = perplexity(([4.0, 2.0], [1, 1]), ([1.0, 0.0], [8, 0]))
    assert metric.compute().item() == pytest.approx(math.exp(0.7))
    score = metric.scores()["perplexity"]
    assert score.value == pytest.approx(math.exp(0.7))
    assert (score.n, score.details) == (10, {"sentences": 4})


def test_a_higher_loss_on_every_sentence_is_significant() -> None:
    losses = [1.0 + 0.1 * i for i in range(20)]
    low, high = perplexity((losses, [2] * 20)), perplexity(([x + 0.2 + 0.01 * x for x in losses], [2] * 20))
    row = differences(high, low)["perplexity"]
    assert row["tests"][0]["p_value"] < 1e-4
    assert 0 < row["interval"][0] < row["value"] < row["interval"][1]


def test_pseudo_perplexity_against_its_definition(
    model: BertForMaskedLM, tokenizer: BertTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = [*own_sentences()[::40], "The zebra 漢 is here."]
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(sentences), encoding="utf-8")
    assert read_text(path, tokenizer) == sentences
    monkeypatch.setattr("lce.metrics.pseudo_perplexity.TOKENS_IN_MEMORY", 600)
    metric = PseudoPerplexityScorer(sentences, tokenizer, max_length=32).score(model, TokenBudget(200))
    assert tokenizer.unk_token_id in tokenizer.encode(sentences[-1]), "an unknown token is a token too"
    assert metric.compute().item() == pytest.approx(literal.pseudo_perplexity(model, tokenizer, sentences), rel=1e-4)
    assert metric.described()["sentence"] == sentences


def test_resamples_without_any_masked_token_do_not_count() -> None:
    low, high = perplexity(([4.0, 0.0], [1, 0])).scores()["perplexity"].as_json()["interval"]
    assert (low, high) == pytest.approx((math.exp(4), math.exp(4)))


def test_text_that_cannot_be_measured_is_refused(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    with pytest.raises(LceError, match="cannot be read as UTF-8 text"):
        read_text(path, tokenizer)
    for content, message in (
        (b"\n \n", "holds no text; expected one sentence a line"),
        (b"\xff\xfe", "cannot be read as UTF-8 text"),
        (b"the man\n\n" + b"she " * 600, "line 3: is longer than the 512 tokens that the model takes"),
    ):
        path.write_bytes(content)
        tokenizer.model_max_length = 512
        with pytest.raises(LceError, match=message):
            read_text(path, tokenizer)
