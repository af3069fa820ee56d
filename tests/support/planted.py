"""A tiny decoder with planted bias: its pronouns depend on one direction alone, which the words of occupations carry.

Words that only men's occupations have point along the direction, words that only women's have point against it. The
first layer gives every position the mean of what comes before it, along the direction; the second does nothing; the
head reads the direction for he and against it for she. Its autoencoder has two features for the two ways, and others
that have nothing to do with them.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import normalize
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lce.metrics.occupation_pronouns import HELD_OUT, OCCUPATIONS, SENTENCES, is_male_dominated
from lce.models.autoencoder import SparseAutoencoder
from lce.models.autoencoder_files import save_autoencoder

WIDTH, FEATURES = 32, 12
SITE = "layers.0"
MALE, FEMALE = 3, 7
"""The numbers of the two features that carry gender."""
STRENGTH = 2.0


def words(texts: object) -> set[str]:
    return set(re.findall(r"\w+|[^\w\s]", " ".join(map(str, texts))))  # type: ignore[call-overload]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    plain = [text.replace("{job}", "").replace("{pronoun}", "") for text in (*SENTENCES, *HELD_OUT)]
    more = "he she male female Male Female x Answer with just one word Q A Imagine a What is the s gender In typical or"
    known = sorted(words([*OCCUPATIONS, *plain, more, ".", ",", ":", "?", "'"]))
    vocabulary = {word: i for i, word in enumerate(["<s>", "<unk>", *known])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        unk_token="<unk>",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def directions() -> torch.Tensor:
    """Orthogonal directions of length 1, (WIDTH, WIDTH); the first one is the planted one."""
    torch.manual_seed(0)
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q.T.contiguous()


def model() -> LlamaForCausalLM:
    known = tokenizer().get_vocab()
    planted, *others = directions()
    config = LlamaConfig(
        vocab_size=len(known), hidden_size=WIDTH, intermediate_size=8, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=128, tie_word_embeddings=False, bos_token_id=0,
        eos_token_id=None, pad_token_id=None, rope_parameters={"rope_type": "default", "rope_theta": 1e9},
    )  # fmt: skip
    made = LlamaForCausalLM(config).eval()
    sides = {True: words(job for job in OCCUPATIONS if is_male_dominated(job)),
             False: words(job for job in OCCUPATIONS if not is_male_dominated(job))}  # fmt: skip
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        for word, number in known.items():
            side = (word in sides[True]) - (word in sides[False])
            made.model.embed_tokens.weight[number] = STRENGTH * side * planted + others[number % (FEATURES - 2)]
        first = made.model.layers[0].self_attn
        first.v_proj.weight.copy_(torch.outer(planted, planted))
        first.o_proj.weight.copy_(torch.eye(WIDTH))
        made.lm_head.weight[known["he"]] = planted
        made.lm_head.weight[known["she"]] = -planted
    return made


def autoencoder() -> SparseAutoencoder:
    """Twelve features: two for the planted direction, ten for what else embeddings hold."""
    planted, *others = directions()
    rows = torch.stack([others[i] for i in range(FEATURES - 2)])
    order = [i for i in range(FEATURES) if i not in (MALE, FEMALE)]
    encoder = torch.zeros(FEATURES, WIDTH)
    encoder[order], encoder[MALE], encoder[FEMALE] = rows, planted, -planted
    return SparseAutoencoder(
        encoder.T.contiguous(), normalize(encoder, dim=1), torch.zeros(FEATURES), torch.zeros(WIDTH), site=SITE
    )


def saved(folder: Path) -> tuple[Path, Path]:
    """Folders of the model and of its autoencoder."""
    model().save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    save_autoencoder(autoencoder(), folder / "sae")
    return folder / "model", folder / "sae"
