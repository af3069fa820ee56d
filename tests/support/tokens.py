"""Byte-pair, WordPiece and Unigram tokenizers of our own sentences, cased and uncased."""

from __future__ import annotations

import json

from conftest import OBJECTS, PLACES, ROLES, SUBJECTS, own_sentences
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizer,
    BertTokenizer,
    DebertaV2Tokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
)


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
