"""Every score on every kind of model and tokenizer, against the literal scorers, on tiny random models."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import literal
import pytest
import torch
from conftest import own_sentences
from tokens import albert_tokens, bert_tokens, deberta_v2_tokens, modern_tokens, roberta_tokens
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DebertaConfig,
    DebertaForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForMaskedLM,
)

from lce.data.encoding import encode
from lce.data.masking import MaskingCollator, MaskingProbabilities
from lce.metrics.association_tests import AssociationTest
from lce.metrics.crows_pairs import CrowsPairsScorer, Pair
from lce.metrics.occupation_pronouns import PRONOUNS, OccupationPronounsScorer, single_tokens
from lce.metrics.pseudo_perplexity import PseudoPerplexityScorer
from lce.metrics.scoring import TokenBudget
from lce.metrics.stereoset import Example, StereoSetScorer
from lce.metrics.weat import WeatScorer
from lce.metrics.word_pieces import word_pieces
from lce.models.loading import load_language_model
from lce.models.logits import logits_at

PAIRS = [
    Pair("My sister was a good nurse.", "My brother was a good nurse.", "stereo"),
    Pair("The man is a physics teacher.", "The woman is a physics teacher.", "antistereo"),
    Pair("The boy sings a Song near the river.", "The little girl sings near the river.", "stereo"),
]
WORDS = {
    ("nurse", "The nurse was BLANK."): ("gentle", "strong", "windowbridge"),
    ("man", "BLANK men are in the town."): ("Strong", "Gardening", "lettertrain"),
    ("girl", "The girl is BLANK, and she is BLANK."): ("good", "green", "bridge"),
    ("boy", "The boy is unBLANK near the river."): ("kind", "good", "song"),
}
EXAMPLES = [Example(*about, words, words) for about, words in WORDS.items()]
TARGETS = (("engineer", "surgeon", "train"), ("nurse", "garden", "song"))
WEAT = AssociationTest("weat", *TARGETS, a=("he", "man"), b=("she", "woman"))
SENTENCES = (("This is a train.", "The bridge is big."), ("A song.", "It is a garden."))
SEAT = AssociationTest("seat", *SENTENCES, a=("He ran.",), b=("She is here.",), protocol="seat")
BUDGET = 60
"""Small, so that there are many batches, with padding."""


class Kind(NamedTuple):
    """How to make a model of the size of a vocabulary, its tokenizer, and whether words need their leading space."""

    model: Callable[[dict[str, int]], PreTrainedModel]
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    spaced: bool = False


LONGEST = {"max_position_embeddings": 66}
SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, **LONGEST}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16}
KINDS = {
    "bert": Kind(lambda v: BertForMaskedLM(BertConfig(**v, **SIZE)), lambda: bert_tokens(lower=True)),
    "bert-cased": Kind(lambda v: BertForMaskedLM(BertConfig(**v, **SIZE)), lambda: bert_tokens(lower=False)),
    "distilbert": Kind(
        lambda v: DistilBertForMaskedLM(DistilBertConfig(**v, **LONGEST, dim=16, n_layers=3, n_heads=2, hidden_dim=32)),
        lambda: bert_tokens(lower=True),
    ),
    "electra": Kind(
        lambda v: ElectraForMaskedLM(ElectraConfig(**v, **SIZE, embedding_size=8)), lambda: bert_tokens(lower=True)
    ),
    "roberta": Kind(
        lambda v: RobertaForMaskedLM(RobertaConfig(**v, **SIZE)),
        roberta_tokens,
        spaced=True,
    ),
    "modernbert": Kind(lambda v: ModernBertForMaskedLM(ModernBertConfig(**v, **SIZE)), modern_tokens, spaced=True),
    "albert": Kind(lambda v: AlbertForMaskedLM(AlbertConfig(**v, **SIZE, embedding_size=8)), albert_tokens),
    "deberta": Kind(lambda v: DebertaForMaskedLM(DebertaConfig(**v, **SIZE, **RELATIVE)), roberta_tokens, spaced=True),
    "deberta-v2": Kind(lambda v: DebertaV2ForMaskedLM(DebertaV2Config(**v, **SIZE, **RELATIVE)), deberta_v2_tokens),
}


class Loaded(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    spaced: bool


@pytest.fixture(params=KINDS, scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A random model of each kind, with weights large enough that positions and words matter, saved and loaded."""
    kind = KINDS[request.param]
    tokenizer = kind.tokenizer()
    torch.manual_seed(0)
    model = kind.model({"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model, tokenizer = load_language_model(folder)
    return Loaded(model.eval(), tokenizer, kind.spaced)


def test_crows_pairs(loaded: Loaded) -> None:
    model, tokenizer, _ = loaded
    scorer = CrowsPairsScorer(PAIRS, tokenizer)
    assert not scorer.special_cases
    for measure, changed in ((scorer.bias_bench, True), (scorer.original, False)):
        items = measure(model, TokenBudget(BUDGET)).items()
        for i, pair in enumerate(PAIRS):
            expected = literal.crows_pairs(model, tokenizer, (pair.more, pair.less), changed)
            assert [items["more"][i], items["less"][i]] == pytest.approx(expected, abs=1e-4)


def test_pronouns_at_the_mask(loaded: Loaded) -> None:
    model, tokenizer, _ = loaded
    sentence = "The {job} is good, and {pronoun} sings."
    scorer = OccupationPronounsScorer("pronouns", [sentence], tokenizer, "masked", limit=3)
    items = scorer.score(model, TokenBudget(BUDGET)).items()
    assert len(scorer.kept) == 6
    for i, probe in enumerate(scorer.kept):
        ids = tokenizer(sentence.format(job=probe.occupation, pronoun=tokenizer.mask_token))["input_ids"]
        found = literal.log_softmax_at(model, ids, ids.index(tokenizer.mask_token_id))
        for side, words in PRONOUNS.items():
            assert items[side][i] == pytest.approx(found[single_tokens(words, tokenizer)].logsumexp(0).item(), abs=1e-4)


def test_stereoset(loaded: Loaded) -> None:
    model, tokenizer, spaced = loaded
    several = 0
    for word_score in ("probability", "log-probability"):
        items = StereoSetScorer(EXAMPLES, tokenizer, word_score).score(model, TokenBudget(BUDGET)).items()
        for i, example in enumerate(EXAMPLES):
            for word, column in zip(example.words, ("stereotype", "anti_stereotype", "unrelated"), strict=True):
                logs = literal.stereoset(model, tokenizer, example.context, word, spaced)
                several += len(logs) > 1
                each = [math.exp(value) for value in logs] if word_score == "probability" else logs
                assert items[column][i] == pytest.approx(sum(each) / len(each), rel=1e-4)
    assert several > 4, "words of several sub-tokens are among them"


def test_associations(loaded: Loaded) -> None:
    model, tokenizer, _ = loaded
    for test in (WEAT, SEAT):
        details = WeatScorer(test, tokenizer).score(model, TokenBudget(BUDGET)).scores()[test.name].details
        assert details["layers"] == pytest.approx(literal.association(model, tokenizer, test), abs=1e-3)


def test_perplexities(loaded: Loaded) -> None:
    model, tokenizer, _ = loaded
    texts = own_sentences()[::50]
    encoded = encode(texts, texts, tokenizer, None, max_length=64)
    scorer = PseudoPerplexityScorer(texts, tokenizer, max_length=64)
    got = scorer.score(model, TokenBudget(BUDGET)).compute().item()
    assert got == pytest.approx(literal.pseudo_perplexity(model, tokenizer, texts), rel=1e-4)
    plain = MaskingProbabilities(term=0.3, other=0.3)
    batch = MaskingCollator(encoded, tokenizer, plain, seed=0)(0, list(range(len(texts))))
    with torch.no_grad():
        logits = logits_at(model, batch.input_ids, batch.attention_mask, batch.positions)
    length = batch.input_ids.shape[1]
    for row, position, logs in zip(
        batch.positions // length, batch.positions % length, logits.log_softmax(-1), strict=True
    ):
        ids = batch.input_ids[row][batch.attention_mask[row].bool()].tolist()
        torch.testing.assert_close(logs, literal.log_softmax_at(model, ids, int(position)), atol=1e-4, rtol=0)


def test_the_longest_input_is_one_that_the_model_takes(loaded: Loaded) -> None:
    model, tokenizer, _ = loaded
    longest = tokenizer.model_max_length
    assert longest == (64 if isinstance(model, RobertaForMaskedLM) else 66), "RoBERTa reserves two of its positions"
    with torch.no_grad():
        assert model(input_ids=torch.full((1, longest), tokenizer.mask_token_id)).logits.shape[1] == longest
        if isinstance(model, BertForMaskedLM | RobertaForMaskedLM | ElectraForMaskedLM | AlbertForMaskedLM):
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, longest + 1), tokenizer.mask_token_id))


def test_whether_a_word_has_a_leading_space_is_seen_from_the_tokenizer(loaded: Loaded) -> None:
    _, tokenizer, spaced = loaded
    for word in ("nurse", "Gardening", "lettertrain"):
        text = f" {word}" if spaced else word
        assert word_pieces(word, tokenizer) == tokenizer.encode(text, add_special_tokens=False)
