"""The bias benchmarks together: read and tokenized once, put to any number of models."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lce.checks import check_evaluation
from lce.config import EvaluationSettings, Kind, MetricName
from lce.data import wheels
from lce.data.specification import BiasSpecification
from lce.foundations.errors import LceError
from lce.metrics import crows_pairs, stereoset, weat
from lce.metrics import occupation_pronouns as pronouns
from lce.metrics.association_tests import load_test
from lce.metrics.forced_choice import ANSWERS, PROMPTS, ForcedChoiceScorer, can_answer
from lce.metrics.items import ItemMetric
from lce.metrics.pseudo_perplexity import PseudoPerplexityScorer
from lce.metrics.scoring import TokenBudget

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Scores = dict[str, dict[str, Any]]
"""By name: value, interval, n (items behind it), and further details of the score."""

CROWS_PAIRS_NAMES = {"race": "race-color"}
"""StereoSet's bias types that CrowS-Pairs calls differently."""
MASKED_ONLY = ("crows_pairs_original", "pseudo_perplexity")
"""Metrics that causal models cannot be measured by."""
PAIRS = "CrowS-Pairs/data/crows_pairs_anonymized.csv"


class BiasSuite:
    """The benchmarks of ``settings``, their data fetched to ``downloads`` if need be.

    Args:
        sentences: for pseudo-perplexity, which cuts them at ``max_length`` tokens.
        kind: of the models that are measured.
        specification: says which occupations count as known.

    Attributes:
        special_cases: per benchmark, the items that are treated differently and how, or why it is left out.
        data: SHA-256 of each data file, and of the texts of each WEAT or SEAT test.

    Raises:
        LceError: a data file was altered, no benchmark knows the bias type, a sentence is longer than the model,
            two tests have one name, or nothing is left to measure.
    """

    def __init__(
        self,
        settings: EvaluationSettings,
        tokenizer: PreTrainedTokenizerBase,
        downloads: str | Path,
        sentences: Sequence[str] = (),
        max_length: int = 128,
        kind: Kind = "masked",
        specification: BiasSpecification | None = None,
    ) -> None:
        check_evaluation(settings)
        self.settings, self.tokenizer, self.kind = settings, tokenizer, kind
        self.budget = TokenBudget(settings.tokens_per_batch)
        self.special_cases: dict[str, list[dict[str, Any]]] = {}
        self.data: dict[str, str] = {}
        self.measures: dict[str, Callable[[PreTrainedModel, TokenBudget], ItemMetric]] = {}
        wanted = self._measurable(settings.metrics)
        if "weat" in wanted:
            self._add_tests()
        if {"stereoset", "crows_pairs", "crows_pairs_original"} & wanted:
            self._add_benchmarks(wheels.fetch(wheels.BENCHMARKS, downloads), wanted)
        if "occupation_pronouns" in wanted:
            self._add_occupations(specification)
        if "forced_choice" in wanted:
            limit = settings.limit and max(1, settings.limit // 2)
            self.measures["forced_choice"] = ForcedChoiceScorer(tokenizer, kind, limit).score
            asked = (PROMPTS, ANSWERS, pronouns.OCCUPATIONS)
            self.data["forced_choice"] = hashlib.sha256(repr(asked).encode()).hexdigest()
        if "pseudo_perplexity" in wanted:
            self.measures["pseudo_perplexity"] = PseudoPerplexityScorer(sentences, tokenizer, max_length).score
            about = repr((list(sentences), max_length))
            self.data["pseudo_perplexity"] = hashlib.sha256(about.encode()).hexdigest()
        if not self.measures and not {"perplexity", "plain_perplexity"} & wanted:
            reasons = "; ".join(f"{name}: {items[0]['reason']}" for name, items in self.special_cases.items() if items)
            raise LceError(f"evaluation.metrics: nothing is left to measure ({reasons or 'no metric is asked for'})")

    def _measurable(self, metrics: Collection[str]) -> set[str]:
        """Those of the ``metrics`` that this kind of model and of bias has; the others become special cases."""
        reasons = {}
        if self.kind == "causal":
            reasons = dict.fromkeys(MASKED_ONLY, "left out: it masks tokens, which a causal model cannot read")
        if self.settings.bias_type not in ("gender", "all"):
            reasons |= dict.fromkeys(("occupation_pronouns", "forced_choice"), "left out: it measures bias of gender")
        elif not all(pronouns.single_tokens(words, self.tokenizer) for words in pronouns.PRONOUNS.values()):
            reasons["occupation_pronouns"] = "left out: the tokenizer has no token for he, or none for she"
        if not can_answer(self.tokenizer):
            reasons.setdefault("forced_choice", "left out: the tokenizer has no token for male, or none for female")
        self.special_cases |= {name: [{"reason": reasons[name]}] for name in metrics if name in reasons}
        return set(metrics) - set(reasons)

    def _add_occupations(self, specification: BiasSpecification | None) -> None:
        limit = self.settings.limit and max(1, self.settings.limit // 2)
        for name, sentences in (("", pronouns.SENTENCES), ("_held_out", pronouns.HELD_OUT)):
            scorer = pronouns.OccupationPronounsScorer(
                f"occupation_pronouns{name}", sentences, self.tokenizer, self.kind, specification, limit
            )
            self.measures[scorer.name] = scorer.score
            self.data[scorer.name] = hashlib.sha256(repr((sentences, pronouns.OCCUPATIONS)).encode()).hexdigest()

    def _add_tests(self) -> None:
        for test in map(load_test, self.settings.weat):
            if test.name in self.measures or test.name in get_args(MetricName):
                raise LceError(f"evaluation.weat: {test.name} names two scores; give the file another name")
            self.measures[test.name] = weat.WeatScorer(test, self.tokenizer, self.kind).score
            self.data[test.name] = hashlib.sha256(repr(test).encode()).hexdigest()

    def _add_benchmarks(self, root: Path, wanted: set[str]) -> None:
        limit = self.settings.limit
        files = {"stereoset": f"StereoSet/data/{self.settings.stereoset_split}.json", "crows_pairs": PAIRS}
        paths = {key: root / name for key, name in files.items()}
        bias_type = self.settings.bias_type
        examples = stereoset.read_examples(paths["stereoset"], bias_type)
        pairs = crows_pairs.read_pairs(paths["crows_pairs"], CROWS_PAIRS_NAMES.get(bias_type, bias_type))
        if not examples and not pairs:
            types = stereoset.bias_types(paths["stereoset"]) | crows_pairs.bias_types(paths["crows_pairs"])
            known = ", ".join(sorted(types))
            raise LceError(f"evaluation.bias_type: unknown type {bias_type!r}; known are all, {known}")
        for key, items in (("stereoset", examples), ("crows_pairs", pairs)):
            if any(metric.startswith(key) for metric in wanted):
                self.data[files[key]] = wheels.BENCHMARKS.files[files[key]]
                if not items:
                    self.special_cases[key] = [{"reason": f"left out: it has no bias type {bias_type}"}]
        if self.kind == "causal":
            if "stereoset" in wanted and self.settings.stereoset_word_score != "probability":
                raise LceError(
                    "evaluation.stereoset_word_score: does not apply to causal models, which score whole sentences"
                )
            if examples and "stereoset" in wanted:
                self.measures["stereoset"] = stereoset.CausalStereoSetScorer(examples[:limit], self.tokenizer).score
            if pairs and "crows_pairs" in wanted:
                self.measures["crows_pairs"] = crows_pairs.CausalCrowsPairsScorer(pairs[:limit], self.tokenizer).score
            return
        if examples and "stereoset" in wanted:
            words = stereoset.StereoSetScorer(examples[:limit], self.tokenizer, self.settings.stereoset_word_score)
            self.special_cases["stereoset"] = words.special_cases
            if words.groups:
                self.measures["stereoset"] = words.score
        if pairs and {"crows_pairs", "crows_pairs_original"} & wanted:
            scorer = crows_pairs.CrowsPairsScorer(pairs[:limit], self.tokenizer)
            self.special_cases["crows_pairs"] = scorer.special_cases
            if scorer.changed and "crows_pairs" in wanted:
                self.measures["crows_pairs"] = scorer.bias_bench
            if scorer.shared and "crows_pairs_original" in wanted:
                self.measures["crows_pairs_original"] = scorer.original

    def measure(self, model: PreTrainedModel, leave_out: Collection[str] = ()) -> list[ItemMetric]:
        """All metrics of ``model`` except those named in ``leave_out``; the model is left as it was."""
        return [measure(model, self.budget) for name, measure in self.measures.items() if name not in leave_out]


def all_scores(metrics: Iterable[ItemMetric]) -> Scores:
    """The scores of all ``metrics``, as they go into JSON."""
    return {name: score.as_json() for metric in metrics for name, score in metric.scores().items()}
