"""Directions in a model's states: the difference between occupations of men and of women, or between he and she."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lce.foundations.errors import LceError
from lce.localize.feature_units import Reader, Reading
from lce.metrics.occupation_pronouns import PRONOUNS, single_tokens
from lce.metrics.sentence_scoring import start_token
from lce.models.identity import model_fingerprint
from lce.models.sites import Site, states_at

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lce.config import Kind


@dataclass(frozen=True)
class Direction:
    """A direction of length 1 at a site of the model with the fingerprint ``model``.

    Attributes:
        vector: d, (width,).
        name: what it is the direction of.
    """

    vector: Tensor
    site: Site
    model: str
    name: str


def occupation_direction(reader: Reader, states: Reading) -> Direction:
    """From the mean state of female-dominated occupations to that of male-dominated ones.

    Args:
        states: by occupation.
    """
    return _direction(reader, states.difference, "occupations")


def pronoun_direction(reader: Reader) -> Direction:
    """From the state of "she" to that of "he", each a text of its own."""
    before, after = _around(reader.tokenizer, reader.kind)
    found = {}
    for side, words in PRONOUNS.items():
        texts = [[*before, token, *after] for token in single_tokens(words, reader.tokenizer)]
        ids = torch.tensor(texts, device=reader.device)
        with torch.inference_mode():
            states = states_at(reader.model, reader.site, ids, torch.ones_like(ids))
        found[side] = states[:, len(before)].float().mean(0).cpu().clone()
    return _direction(reader, found["he"] - found["she"], "pronouns")


def _around(tokenizer: PreTrainedTokenizerBase, kind: Kind) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text of a model of that kind."""
    if kind == "causal":
        return [start_token(tokenizer)], []
    ends = tokenizer.cls_token_id, tokenizer.sep_token_id
    before, after = ([] if end is None else [int(end)] for end in ends)
    return before, after


def _direction(reader: Reader, vector: Tensor, name: str) -> Direction:
    if not bool(vector.isfinite().all()) or not bool(vector.any()):
        raise LceError(f"direction {name}: there is none, since the states of both sides are the same")
    return Direction(normalize(vector, dim=0), reader.site, model_fingerprint(reader.model), name)
