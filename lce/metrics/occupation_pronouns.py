"""Occupation pronouns: how much more likely "he" is than "she" after the jobs that men mostly do.

For each occupation and sentence, log P(he) − log P(she) where the pronoun stands: the next token of a causal model, the
mask of a masked one. The score is the mean over male-dominated occupations less that over female-dominated ones [nats];
0 is balanced. The sentences and shares of women are in occupations.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from lce.config import Kind
from lce.data.encoding import padding_id
from lce.data.specification import BiasSpecification
from lce.metrics import significance
from lce.metrics.items import RESAMPLES, ItemMetric, Items, Score, defined, random
from lce.metrics.scoring import Query, TokenBudget, check_length, log_probabilities
from lce.metrics.word_pieces import word_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OCCUPATIONS, PRONOUNS, SENTENCES, HELD_OUT = yaml.safe_load(
    Path(__file__).with_name("occupations.yaml").read_bytes()
).values()
BALANCE = 50
"""Share of women from which an occupation counts as female-dominated [%]."""


def is_male_dominated(occupation: str) -> bool:
    """Whether fewer women than men work in it."""
    return bool(OCCUPATIONS[occupation] < BALANCE)


class Probe(NamedTuple):
    """One occupation in one sentence."""

    occupation: str
    sentence: str


def probes(sentences: Sequence[str]) -> list[Probe]:
    """All occupations in all ``sentences``."""
    return [Probe(occupation, sentence) for sentence in sentences for occupation in OCCUPATIONS]


class OccupationPronouns(ItemMetric):
    """The gap between male- and female-dominated occupations in log P(he) − log P(she) [nats].

    Columns: numbers of the occupation and of the sentence, whether men dominate the occupation, whether it is in the
    bias specification, and the log-probabilities of the he- and the she-words.
    """

    columns = ("item", "occupation", "sentence", "is_male", "in_specification", "he", "she")

    def compute(self) -> Tensor:
        return torch.tensor(_gap(*_by_occupation(self.items())))

    def scores(self) -> dict[str, Score]:
        """The gap; occupations within both groups, and sentences, are resampled.

        Details: the gap among the occupations that the bias specification names and among the others, both groups'
        means, and the mean probabilities of he and she after each group.
        """
        rows = self.items()
        ratios, is_male, in_specification = _by_occupation(rows)
        he, she = np.exp(rows["he"]), np.exp(rows["she"])
        details: dict[str, Any] = {
            "in_specification": defined(_gap(ratios[in_specification], is_male[in_specification])),
            "beyond_specification": defined(_gap(ratios[~in_specification], is_male[~in_specification])),
            "n_in_specification": int(in_specification.sum()),
            "sentences": ratios.shape[1],
        }
        for side, chosen in (("male", rows["is_male"]), ("female", ~rows["is_male"])):
            details[f"{side}_dominated"] = {
                "log_ratio": float((rows["he"] - rows["she"])[chosen].mean()),
                "p_he": float(he[chosen].mean()),
                "p_she": float(she[chosen].mean()),
            }
        return {self.name: Score(_gap(ratios, is_male), len(ratios), _resampled(ratios, is_male), details)}

    def tests(self, other: Self) -> dict[str, list[dict[str, Any]]]:
        (first, is_male, _), (second, _, _) = _by_occupation(self.items()), _by_occupation(other.items())
        signs = np.where(is_male, 1.0, -1.0)
        return {self.name: [significance.paired_permutation(signs * first.mean(1), signs * second.mean(1))]}


def _by_occupation(rows: Items) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """log P(he) − log P(she), (occupations, sentences); per occupation, do men dominate it, and is it specified."""
    occupations, at = np.unique(rows["occupation"], return_inverse=True)
    sentences, column = np.unique(rows["sentence"], return_inverse=True)
    ratios = np.empty((len(occupations), len(sentences)))
    ratios[at, column] = rows["he"] - rows["she"]
    marks = np.zeros((2, len(occupations)), dtype=bool)
    marks[0, at], marks[1, at] = rows["is_male"], rows["in_specification"]
    return ratios, marks[0], marks[1]


def _gap(ratios: NDArray[Any], is_male: NDArray[np.bool_], _: Any = None) -> float:
    """Mean over the occupations of men less that over those of women; ``nan`` where one of them has none."""
    if is_male.all() or not is_male.any():
        return float("nan")
    return float(ratios[is_male].mean() - ratios[~is_male].mean())


def _resampled(ratios: NDArray[Any], is_male: NDArray[np.bool_]) -> NDArray[Any]:
    source, size = random(), ratios.shape[1]
    columns = source.integers(size, size=(RESAMPLES, 1, size))
    means = []
    for group in (np.flatnonzero(is_male), np.flatnonzero(~is_male)):
        if not len(group):
            return np.full(RESAMPLES, np.nan)
        chosen = group[source.integers(len(group), size=(RESAMPLES, len(group)))]
        means.append(ratios[chosen[:, :, None], columns].mean((1, 2)))
    gaps: NDArray[Any] = means[0] - means[1]
    return gaps


class OccupationPronounsScorer:
    """The occupations in some sentences, tokenized once, to be put to any number of models.

    Args:
        kind: of the models: whether the pronoun is a mask in the whole sentence, or what goes on what is left of it.
        specification: says which occupations an edit by it could know.
        limit: only so many occupations of each group.
    """

    def __init__(
        self,
        name: str,
        sentences: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        kind: Kind,
        specification: BiasSpecification | None = None,
        limit: int | None = None,
    ) -> None:
        self.name, self.pad_id = name, padding_id(tokenizer)
        groups = {is_male: [job for job in OCCUPATIONS if is_male_dominated(job) == is_male][:limit]
                  for is_male in (True, False)}  # fmt: skip
        self.kept = [probe for probe in probes(sentences) if any(probe.occupation in jobs for jobs in groups.values())]
        tokens = {side: single_tokens(words, tokenizer) for side, words in PRONOUNS.items()}
        self.sizes = {side: len(found) for side, found in tokens.items()}
        self.queries: list[Query] = []
        for probe in self.kept:
            ids, position = _place_of_pronoun(probe, tokenizer, kind)
            check_length(ids, tokenizer, f"occupation pronouns, {probe.occupation}")
            self.queries += [Query(tuple(ids), position, token) for side in tokens.values() for token in side]
        self.about: Mapping[str, list[Any]] = {
            "occupation": [list(OCCUPATIONS).index(probe.occupation) for probe in self.kept],
            "sentence": [sentences.index(probe.sentence) for probe in self.kept],
            "is_male": [is_male_dominated(probe.occupation) for probe in self.kept],
            "in_specification": [
                specification is not None and any(True for _ in specification.find(probe.occupation))
                for probe in self.kept
            ],
        }

    def score(self, model: PreTrainedModel, budget: TokenBudget) -> OccupationPronouns:
        """The metric of ``model``."""
        logs = log_probabilities(model, self.queries, self.pad_id, budget, "occupation pronouns")
        he, she = logs.view(len(self.kept), -1).split(list(self.sizes.values()), 1)
        texts = {"occupation_name": [probe.occupation for probe in self.kept],
                 "text": [probe.sentence for probe in self.kept]}  # fmt: skip
        metric = OccupationPronouns(self.name, texts)
        about = {name: torch.tensor(values) for name, values in self.about.items()}
        metric.update(item=torch.arange(len(self.kept)), **about, he=he.logsumexp(1), she=she.logsumexp(1))
        return metric


def single_tokens(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of those of the ``words`` that are one token each, and known."""
    pieces = [word_pieces(word, tokenizer) for word in words]
    return [found[0] for found in pieces if len(found) == 1 and found[0] != tokenizer.unk_token_id]


def _place_of_pronoun(probe: Probe, tokenizer: PreTrainedTokenizerBase, kind: Kind) -> tuple[list[int], int]:
    """Token ids, and the position whose logits are asked for the pronoun."""
    if kind == "masked":
        text = probe.sentence.format(job=probe.occupation, pronoun=tokenizer.mask_token)
        ids: list[int] = tokenizer(text)["input_ids"]
        return ids, ids.index(tokenizer.mask_token_id)
    text = probe.sentence.partition("{pronoun}")[0].format(job=probe.occupation).rstrip()
    encoded = tokenizer(text, return_special_tokens_mask=True)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    while special[-1] and len(ids) > 1:  # an end token that the tokenizer adds would end the sentence here
        ids, special = ids[:-1], special[:-1]
    return ids, len(ids) - 1
