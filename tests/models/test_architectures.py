"""Every score on every kind of model and tokenizer, against the literal scorers: tiny random models, our own sentences.

Byte-pair, WordPiece and Unigram tokenizers are trained here on our own sentences, cased and uncased.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import NamedTuple

import literal
import pytest
import torch
from conftest import OBJECTS, PLACES, ROLES, SUBJECTS, own_sentences
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DebertaConfig,
    DebertaForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2Tokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
)

from lce.data.encoding import encode
from lce.data.masking import MaskingCollator, MaskingProbabilities
from lce.metrics.crows_pairs import CrowsPairsScorer, Pair
from lce.metrics.pseudo_perplexity import PseudoPerplexityScorer
from lce.metrics.scoring import TokenBudget
from lce.metrics.stereoset import Example, StereoSetScorer, word_pieces
from lce.metrics.weat import AssociationTest, WeatScorer
from lce.models.layers import is_layer_matrix, prunable_parameters
from lce.models.loading import load_masked_lm
from lce.models.logits import masked_logits

PAIRS = [
    Pair("My sister was a good nurse.", "My brother was a good nurse.", "stereo"),
    Pair("The man is a physics teacher.", "The woman is a physics teacher.", "antistereo"),
    Pair("The boy sings a Song near the river.", "The little girl sings near the river.", "stereo"),
]
EXAMPLES = [
    Example("nurse", "The nurse was BLANK.", ("gentle", "strong", "windowbridge")),
    Example("man", "BLANK men are in the town.", ("Strong", "Gardening", "lettertrain")),
    Example("girl", "The girl is BLANK, and she is BLANK.", ("good", "green", "bridge")),
    Example("boy", "The boy is unBLANK near the river.", ("kind", "good", "song")),
]
TARGETS = (("engineer", "surgeon", "train"), ("nurse", "garden", "song"))
WEAT = AssociationTest("weat", *TARGETS, a=("he", "man"), b=("she", "woman"))
SENTENCES = (("This is a train.", "The bridge is big."), ("A song.", "It is a garden."))
SEAT = AssociationTest("seat", *SENTENCES, a=("He ran.",), b=("She is here.",), protocol="seat")
BUDGET = 60
"""Small, so that there are many batches, with padding."""


def bert_tokens(lower: bool) -> BertTokenizer:
    letters = {c for text in own_sentences() for c in text} - {" ", "."}
    words = set(" ".join([*SUBJECTS, *ROLES, *PLACES, *OBJECTS]).replace("-", " ").split())
    chunks = {*letters, *(f"##{c}" for c in letters), *words}
    chunks = {p.lower() for p in chunks} if lower else chunks
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ","]
    return BertTokenizer(vocab={p: i for i, p in enumerate([*special, *sorted(chunks)])}, do_lower_case=lower)


def trained(model: models.Model, pre_tokenizer: pre_tokenizers.PreTokenizer, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(own_sentences(), trainer)
    return tokenizer


def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer = trained(models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return tokenizer.get_vocab(), [tuple(merge) for merge in merges]


def roberta_tokens() -> RobertaTokenizer:
    vocab, merges = byte_pairs()
    return RobertaTokenizer(vocab=vocab, merges=merges)


def modern_tokens() -> PreTrainedTokenizerFast:
    """As ModernBERT's: byte pairs, BERT's special tokens, a mask that takes the space before it."""
    vocab, merges = byte_pairs()
    names = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
    tokenizer = Tokenizer(models.BPE(vocab={names.get(p, p): i for p, i in vocab.items()}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [("[CLS]", vocab["<s>"]), ("[SEP]", vocab["</s>"])]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="[CLS]",
        pad_token="[PAD]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token=AddedToken("[MASK]", lstrip=True, special=True),
    )


def unigram(special: list[str]) -> list[tuple[str, float]]:
    trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=special, unk_token=special[1], show_progress=False)
    tokenizer = trained(models.Unigram(), pre_tokenizers.Metaspace(), trainer)
    return [(chunk, score) for chunk, score in json.loads(tokenizer.to_str())["model"]["vocab"]]


def albert_tokens() -> AlbertTokenizer:
    return AlbertTokenizer(vocab=unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]))


def deberta_v2_tokens() -> DebertaV2Tokenizer:
    return DebertaV2Tokenizer(vocab=unigram(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))


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
    model, tokenizer = load_masked_lm(folder)
    return Loaded(model.eval(), tokenizer, kind.spaced)


def test_crows_pairs(loaded: Loaded) -> None:
    model, tokenizer, _ = loaded
    scorer = CrowsPairsScorer(PAIRS, tokenizer)
    assert not scorer.odd
    for measure, changed in ((scorer.bias_bench, True), (scorer.original, False)):
        items = measure(model, TokenBudget(BUDGET)).items()
        for i, pair in enumerate(PAIRS):
            expected = literal.crows_pairs(model, tokenizer, (pair.more, pair.less), changed)
            assert [items["more"][i], items["less"][i]] == pytest.approx(expected, abs=1e-4)


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
        logits = masked_logits(model, batch.input_ids, batch.attention_mask, batch.positions)
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


def test_the_matrices_of_the_layers_are_the_same_by_type_and_by_name(loaded: Loaded) -> None:
    """Training asks the modules, checkpoints on a disk have names and shapes only."""
    by_name = {n for n, p in loaded.model.named_parameters() if is_layer_matrix(n, tuple(p.shape))}
    assert by_name == set(prunable_parameters(loaded.model)) != set()
