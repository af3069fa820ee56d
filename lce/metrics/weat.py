"""WEAT: do two sets of target words X and Y differ in their association with two sets of attributes A and B?

s(w) = mean_a cos(w, a) − mean_b cos(w, b); effect size = (mean_X s − mean_Y s) / std_{X∪Y} s, the standard
deviation with n − 1 (Caliskan et al. 2017). For a contextual encoder each word is fed alone, "[CLS] word
[SEP]", its vector is taken at every layer (mean over its sub-tokens), and the effect size is averaged over the
layers (Vulić et al. 2020). Positive is stereotypical.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric

from lce.errors import LceError
from lce.metrics.scoring import evaluating, padded
from lce.seeds import generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EXACT_PARTITIONS = 100_000
"""Up to so many partitions the permutation test is exact; beyond, it draws as many."""


@dataclass(frozen=True)
class WordSets:
    """The four word sets of a test."""

    name: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    a: tuple[str, ...]
    b: tuple[str, ...]


SETS_FOLDER = Path(__file__).parent / "weat"


def load_word_sets(name: str | Path) -> WordSets:
    """A built-in test (weat6, weat7, weat8) by name, or a YAML file with the lists x, y, a and b.

    Raises:
        LceError: there is no such test, a list is missing or holds no words, or X and Y differ in size.
    """
    path = SETS_FOLDER / f"{name}.yaml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SETS_FOLDER.glob("*.yaml")))
        raise LceError(f"weat: neither a file nor a known test: {name!r}; known are {known}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LceError(f"weat {path}: not valid YAML ({' '.join(str(error).split())})") from error
    keys = ("x", "y", "a", "b")
    if not isinstance(raw, dict) or set(raw) != set(keys):
        raise LceError(f"weat {path}: expected exactly the lists x, y, a and b")
    for key in keys:
        if not isinstance(raw[key], list) or not raw[key] or not all(isinstance(w, str) for w in raw[key]):
            raise LceError(f"weat {path}: {key} must be a list of words")
    if len(raw["x"]) != len(raw["y"]):
        raise LceError(f"weat {path}: x and y must have the same size, got {len(raw['x'])} and {len(raw['y'])}")
    return WordSets(path.stem, *(tuple(raw[key]) for key in keys))


def associations(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """s(w) of all words of X, then Y, over their standard deviation.

    Args:
        x, y, a, b: vectors of shape (layers, words, width).

    Returns:
        Shape (layers, |X| + |Y|); the difference of the means over X and Y is the effect size of each layer.
    """
    words, a, b = (normalize(v.double(), dim=-1) for v in (torch.cat([x, y], 1), a, b))
    s = (words @ a.mT).mean(-1) - (words @ b.mT).mean(-1)
    return s / s.std(-1, keepdim=True)


def effect_size(standardised: Tensor, size_x: int) -> Tensor:
    """mean_X − mean_Y over the last dimension."""
    return standardised[..., :size_x].mean(-1) - standardised[..., size_x:].mean(-1)


def p_value(standardised: Tensor, size_x: int) -> float:
    """One-sided permutation test of the mean effect size: share of equal-sized partitions that reach it.

    The standard deviation is the same for all partitions, so the mean over layers can be taken first.
    """
    scores = standardised.mean(0)
    n = len(scores)
    if comb(n, size_x) <= EXACT_PARTITIONS:
        first = torch.tensor(list(combinations(range(n), size_x)))
    else:
        random = generator("weat permutations")
        first = torch.rand(EXACT_PARTITIONS, n, generator=random).argsort(-1)[:, :size_x]
    sums = scores[first].sum(-1)
    observed = scores[:size_x].sum()
    return float((sums >= observed - 1e-12).double().mean())


class Weat(Metric):
    """Effect size, averaged over layers."""

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    effects: Tensor
    tests: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("effects", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="mean")
        self.add_state("tests", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="mean")

    def update(self, standardised: Tensor, size_x: int) -> None:
        """Add one test's associations, as `associations` gives them."""
        self.effects += effect_size(standardised, size_x).mean()
        self.tests += 1

    def compute(self) -> Tensor:
        return self.effects / self.tests


class WeatScorer:
    """The words of a test, tokenized once, to be shown to any number of models."""

    def __init__(self, sets: WordSets, tokenizer: PreTrainedTokenizerBase) -> None:
        self.sets = sets
        self.pad_id = tokenizer.pad_token_id
        self.words = list(dict.fromkeys([*sets.x, *sets.y, *sets.a, *sets.b]))
        encoded = tokenizer(self.words, return_special_tokens_mask=True)
        self.ids = encoded["input_ids"]
        self.special = encoded["special_tokens_mask"]

    @property
    def n(self) -> int:
        return len(self.words)

    def vectors(self, model: PreTrainedModel) -> Tensor:
        """Vectors of all words at all layers, shape (layers, words, width)."""
        ids, attention = padded(self.ids, self.pad_id, model.device)
        own = torch.zeros_like(ids)
        for row, special in enumerate(self.special):
            own[row, : len(special)] = 1 - torch.tensor(special, device=ids.device)
        with evaluating(model):
            output = model.base_model(input_ids=ids, attention_mask=attention, output_hidden_states=True)
            states = torch.stack(output.hidden_states[1:]).float()
            weights = (own / own.sum(-1, keepdim=True)).unsqueeze(-1)
            return (states * weights).sum(2).cpu().clone()

    def score(self, model: PreTrainedModel) -> tuple[Weat, float]:
        """The metric of ``model`` and its p-value."""
        vectors = self.vectors(model)
        index = {word: i for i, word in enumerate(self.words)}
        x, y, a, b = (
            vectors[:, [index[w] for w in words]] for words in (self.sets.x, self.sets.y, self.sets.a, self.sets.b)
        )
        standardised = associations(x, y, a, b)
        metric = Weat()
        metric.update(standardised, len(self.sets.x))
        return metric, p_value(standardised, len(self.sets.x))
