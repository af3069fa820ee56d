"""LALS: towards which group the states of visual tokens lean, by the texts that are nearest to them.

The latent association leaning score of a state is the mean label, 1 for the first group and −1 for the other, of the k
texts whose states in the same layer have the highest cosine with it (Marin-Llobet, Henniger and Banaji 2026). A
picture's is the mean over those of its visual tokens that lean most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn.functional import normalize

from lce.data.pictures.prompts import filled
from lce.foundations.errors import LceError
from lce.models.image_text import ImageText

FOLDER = files("lce.data") / "sentences"
EXPECTED = "pairs: lists of two words, and templates: sentences with {} for one of them"
BATCH = 64
"""Texts that are read together."""


@dataclass(frozen=True)
class Sentence:
    """A ``text`` about somebody of the first group, label 1, or the other, −1, and where the word that says so is."""

    text: str
    label: int
    word: tuple[int, int]


def load_sentences(name: str) -> list[Sentence]:
    """The sentences that come with lce for an attribute, by its ``name``, or those of a YAML file.

    Raises:
        LceError: there are none, or the file is not built like lce's own.
    """
    known = sorted(Path(entry.name).stem for entry in FOLDER.iterdir())
    try:
        source = FOLDER / f"{name}.yaml" if name in known else Path(name)
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
        found = list(_sentences(content))
    except (OSError, UnicodeDecodeError) as error:
        raise LceError(f"sentences {name}: are none of {', '.join(known)}, nor a YAML file that can be read") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise LceError(f"sentences {name}: expected {EXPECTED}") from error
    if not found:
        raise LceError(f"sentences {name}: expected {EXPECTED}")
    return found


def _sentences(content: Any) -> Iterator[Sentence]:
    for template in content["templates"]:
        if template.count("{}") != 1:
            raise ValueError
        for pair in content["pairs"]:
            first, second = map(str, pair)
            for word, label in ((first, 1), (second, -1)):
                text = filled(template, word)
                start = text.index(word, template.index("{}"))  # "a" before it may have become "an"
                yield Sentence(text, label, (start, start + len(word)))


@dataclass(frozen=True)
class TextReference:
    """The states of texts in every layer.

    Attributes:
        states: of length 1, (layers, n, width).
        labels: 1 or −1, (n).
    """

    states: Tensor
    labels: Tensor

    def nearest(self, layer: int, states: Tensor, k: int) -> Tensor:
        """The k texts nearest to each of the ``states`` (m, width), by number: (m, k)."""
        cosines = normalize(states.float(), dim=1) @ self.states[layer].to(states.device).t()
        return cosines.topk(k, dim=1).indices

    def direction(self, layer: int) -> Tensor:
        """From the mean state of the second group's texts to that of the first one's, of length 1: (width)."""
        one, other = (self.states[layer][self.labels == label].mean(0) for label in (1, -1))
        return normalize(one - other, dim=0)


def read_reference(model: ImageText, sentences: Sequence[Sentence]) -> TextReference:
    """The states of the word that names the group, in its context, in every layer: of its last token."""
    layers = len(model.layers)
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i].text))
    found: Tensor | None = None
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        seen: dict[int, Tensor] = {}
        about = model.read_texts([sentences[i].text for i in chosen], seen.__setitem__)
        places = [_last_token(about["offsets"][row], sentences[i]) for row, i in enumerate(chosen)]
        rows = torch.arange(len(chosen))
        for layer, states in seen.items():
            if found is None:
                found = torch.zeros(layers, len(sentences), states.shape[-1])
            found[layer, chosen] = normalize(states[rows, places].float(), dim=1).cpu()
    assert found is not None
    return TextReference(found, torch.tensor([sentence.label for sentence in sentences]))


def _last_token(offsets: Tensor, sentence: Sentence) -> int:
    """The last token of the word that names the group."""
    start, end = sentence.word
    inside = ((offsets[:, 0] < end) & (offsets[:, 1] > start)).nonzero().flatten()
    if not len(inside):
        raise LceError(f"sentence {sentence.text!r}: the tokenizer does not say where its words are")
    return int(inside[-1])


def leaning(labels: Tensor, nearest: Tensor) -> Tensor:
    """LALS: the mean label of the ``nearest`` texts (…, k); for each of the rows of ``labels`` if there are several."""
    return labels.float()[..., nearest].mean(-1)


def of_pictures(tokens: Tensor, top: float) -> Tensor:
    """A picture's score from those of its ``tokens`` (…, pictures, tokens): the mean over the ``top`` share of tokens
    with the largest absolute value, one at least."""
    count = max(1, ceil(top * tokens.shape[-1]))
    strongest = tokens.abs().topk(count, dim=-1).indices
    return tokens.gather(-1, strongest).mean(-1)
