"""The scores of causal models against the protocols spelled out one sentence at a time, on every type of model."""

from __future__ import annotations

from itertools import product

import literal
import numpy as np
import pytest
import torch
from causal_models import CONFIGS, NAMED, tiny, tokenizer
from transformers import PreTrainedModel

from lce.data.collating import Collator
from lce.data.encoding import encode
from lce.data.next_token import NextTokenCollator
from lce.data.specification import BiasSpecification
from lce.metrics.association_tests import load_test
from lce.metrics.crows_pairs import CausalCrowsPairsScorer, Pair
from lce.metrics.occupation_pronouns import (
    HELD_OUT,
    OCCUPATIONS,
    SENTENCES,
    OccupationPronouns,
    OccupationPronounsScorer,
)
from lce.metrics.perplexity import Perplexity, token_losses
from lce.metrics.scoring import TokenBudget
from lce.metrics.sentence_scoring import sentence_ids, sentence_scores, start_token
from lce.metrics.stereoset import CausalStereoSetScorer, Example
from lce.metrics.weat import WeatScorer
from lce.models import logits

PAIRS = [
    Pair("The nurse said that she would help.", "The nurse said that he would help.", "stereo"),
    Pair("He is a plumber", "She is a plumber", "antistereo"),
    Pair("The model edits itself.", "The model edits itself.", "stereo"),
    Pair("She said so", "She said so too, and then she went home.", "stereo"),
    Pair("A", "B", "antistereo"),
]
EXAMPLES = [
    Example("nurse", "The nurse is BLANK.", ("kind", "rude", "wood"), tuple(f"The nurse is {w}." for w in words))
    for words in (("kind", "rude", "wood"), ("a woman", "a man", "a selection of weights"))
]  # fmt: skip
CLOSE = {"abs": 2e-5, "rel": 1e-5}


def score(model: PreTrainedModel, text: str) -> float:
    return literal.sentence_score(model, tokenizer(), text, start=0)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("tokens", [1, 40, 10_000])
def test_sentences_are_scored_as_one_by_one(kind: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batch and the chunk of the head, with common beginnings computed once where the type allows it."""
    monkeypatch.setattr(logits, "LOGITS", 3 * len(tokenizer()) if tokens == 40 else 1 << 24)
    model = tiny(kind)
    budget = TokenBudget(tokens)
    metric = CausalCrowsPairsScorer(PAIRS, tokenizer()).score(model, budget).items()
    for i, pair in enumerate(PAIRS):
        assert metric["more"][i] == pytest.approx(score(model, pair.more), **CLOSE)
        assert metric["less"][i] == pytest.approx(score(model, pair.less), **CLOSE)
    found = CausalStereoSetScorer(EXAMPLES, tokenizer()).score(model, budget).items()
    for i, example in enumerate(EXAMPLES):
        for word, sentence in zip(("stereotype", "anti_stereotype", "unrelated"), example.sentences, strict=True):
            assert found[word][i] == pytest.approx(score(model, sentence), **CLOSE)


def test_equal_scores_count_for_neither_and_all_pairs_count() -> None:
    model = tiny("llama")
    metric = CausalCrowsPairsScorer(PAIRS, tokenizer()).score(model, TokenBudget())
    wins = [score(model, pair.more) > score(model, pair.less) for pair in PAIRS]
    assert not metric.preferred()[2]
    assert metric.scores()["crows_pairs"].value == pytest.approx(100 * sum(wins) / len(PAIRS))
    assert metric.scores()["crows_pairs"].n == len(PAIRS)


def test_common_beginnings_are_computed_once() -> None:
    model, seen = tiny("llama"), []
    model.model.register_forward_hook(lambda m, a, k, o: seen.append(k["input_ids"].shape), with_kwargs=True)
    texts = ["The nurse said that she left", "The nurse said that he left", "The nurse said that it left"]
    ids = sentence_ids(texts, tokenizer(), "test")
    sentence_scores(model, [ids, ids[:2]], tokenizer(), TokenBudget(), "test")
    shared = next(i for i in range(99) if len({s[i] for s in ids}) > 1)
    row = shared + sum(len(s) - shared for s in ids)
    assert seen == [(1, 1), (1, row), (1, row - len(ids))], "the start token, one row, and the head without last tokens"


@pytest.mark.parametrize("kind", NAMED)
def test_perplexity_is_that_of_the_sentences_alone(kind: str) -> None:
    model, sentences = tiny(kind), [pair.more for pair in PAIRS[:4]]
    texts = encode(sentences, sentences, tokenizer(), None, 64)
    collator: Collator = NextTokenCollator(texts, 1)
    metric = Perplexity("perplexity")
    batch = collator(0, range(len(sentences)))
    with torch.no_grad():
        metric.add(batch, token_losses(model, batch))
    assert metric.compute().item() == pytest.approx(literal.causal_perplexity(model, tokenizer(), sentences), rel=1e-4)


@pytest.mark.parametrize("kind", NAMED)
def test_pronouns_are_read_off_the_next_token(kind: str) -> None:
    model = tiny(kind)
    metric = OccupationPronounsScorer("pronouns", SENTENCES[:2], tokenizer(), "causal").score(model, TokenBudget())
    ratios: dict[bool, list[float]] = {True: [], False: []}
    for sentence in SENTENCES[:2]:
        for job, share in OCCUPATIONS.items():
            prompt = sentence.partition(" {pronoun}")[0].format(job=job)
            ratios[share < 50].append(literal.pronoun_ratio(model, tokenizer(), prompt))
    gap = np.mean(ratios[True]) - np.mean(ratios[False])
    assert metric.compute().item() == pytest.approx(gap, abs=1e-4)
    found = metric.scores()["pronouns"]
    assert found.n == 40
    assert found.as_json()["interval"][0] < found.value < found.as_json()["interval"][1]
    assert metric.tests(metric)["pronouns"][0]["p_value"] == 1


def test_pronouns_by_whether_the_specification_names_the_job(spec: BiasSpecification) -> None:
    model = tiny("llama")
    metric = OccupationPronounsScorer("own", HELD_OUT, tokenizer(), "causal", spec).score(model, TokenBudget())
    rows, jobs = metric.items(), list(OCCUPATIONS)
    assert set(metric.texts["text"]) == set(HELD_OUT)
    named = {job for job in jobs if any(True for _ in spec.find(job))}
    assert len(named) == 7
    means: dict[tuple[bool, bool], float] = {}
    for is_named, is_male in product((True, False), repeat=2):
        chosen = [((job in named) is is_named) and ((OCCUPATIONS[job] < 50) is is_male) for job in jobs]
        means[is_named, is_male] = float(np.mean((rows["he"] - rows["she"])[np.array(chosen)[rows["occupation"]]]))
    found = metric.scores()["own"].details
    assert found["n_in_specification"] == 7
    assert found["in_specification"] == pytest.approx(means[True, True] - means[True, False])
    assert found["beyond_specification"] == pytest.approx(means[False, True] - means[False, False])
    he, is_male = np.exp(rows["he"]), rows["is_male"]
    assert found["male_dominated"]["p_he"] == pytest.approx(he[is_male].mean())
    assert found["female_dominated"]["p_she"] == pytest.approx(np.exp(rows["she"])[~is_male].mean())


def test_the_interval_of_pronouns_resamples_sentences() -> None:
    """Where only sentences differ, and only for men's jobs, the gap's spread is that of a mean over sentences."""
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    metric = OccupationPronouns("own")
    item = torch.arange(4 * len(values))
    job, sentence = item // len(values), item % len(values)
    he = torch.where(job < 2, torch.tensor(values)[sentence], 0.0)
    shared = {"is_male": job < 2, "in_specification": job < 0, "she": torch.zeros(len(item))}
    metric.update(item=item, occupation=job, sentence=sentence, he=he, **shared)
    assert metric.scores()["own"].resampled.std() == pytest.approx(values.std() / len(values) ** 0.5, rel=0.05)


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("name", ["weat8", "seat8"])
def test_associations(kind: str, name: str) -> None:
    model, test = tiny(kind), load_test(name)
    scorer = WeatScorer(test, tokenizer(), "causal")
    found = scorer.vectors(model, TokenBudget(100))
    text = test.x[0]
    if name == "weat8":
        ids = [start_token(tokenizer()), *tokenizer().encode(f" {text}", add_special_tokens=False)]
        with torch.no_grad():
            states = model.base_model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[1:]
        expected = torch.stack([state[0, 1:].mean(0) for state in states])
    else:
        with torch.no_grad():
            output = model.base_model(**tokenizer()(text, return_tensors="pt", return_token_type_ids=False))
        expected = output.last_hidden_state.mean(1)
    torch.testing.assert_close(found[:, scorer.texts.index(text)], expected, atol=1e-4, rtol=1e-4)


def test_every_type_in_the_table_is_tested() -> None:
    assert set(logits.DECODERS) <= set(CONFIGS)
    assert set(logits.DECODERS) >= logits.ROWS
