"""WEAT and SEAT: how two sets of targets X and Y differ in their association with two sets of attributes A and B.

s(w) = mean_a cos(w, a) − mean_b cos(w, b); effect size = (mean_X s − mean_Y s) / std_{X∪Y} s, the standard
deviation with n − 1 (Caliskan et al. 2017). Positive is stereotypical.
WEAT of a contextual encoder feeds each word alone, "[CLS] word [SEP]", takes its vector at every layer (mean over its
sub-tokens), and averages the effect size over the layers (Vulić et al. 2020).
A causal model reads the word after its start token, as after another word, so that a word of one token is not the
first one, whose vector is that of an attention sink, whatever it is.
SEAT feeds sentences and takes the mean over all tokens of the last layer, special ones included (May et al. 2019,
in the code of bias-bench).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from lce.config import Kind
from lce.data.encoding import padding_id
from lce.metrics import significance
from lce.metrics.association_tests import AssociationTest
from lce.metrics.items import RESAMPLES, ItemMetric, Items, Score, defined, random
from lce.metrics.scoring import TokenBudget, check_length, evaluating, padded
from lce.metrics.sentence_scoring import start_token
from lce.metrics.word_pieces import word_pieces
from lce.models.fast_linear import OneDnnLinear
from lce.models.logits import without_cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Weat(ItemMetric):
    """Effect size, averaged over the layers that count.

    Columns: cosines of each target with every attribute of A and of B at every layer; shape (targets, layers, n).
    """

    columns = ("item", "is_x", "cosines_a", "cosines_b")

    def compute(self) -> Tensor:
        return torch.tensor(_effect_sizes(*_split(_associations(self.rows()), self.rows()["is_x"])).mean())

    def rows(self) -> Items:
        return super().items()

    def items(self) -> Items:
        """Each target's number, whether it is in X, and its standardised association, averaged over layers."""
        rows = self.rows()
        return {"item": rows["item"], "is_x": rows["is_x"], "association": _standardised(_associations(rows)).mean(-1)}

    def among(self, numbers: Any) -> Self:
        """The metric itself: two models always share all words of a test."""
        return self

    def scores(self) -> dict[str, Score]:
        """The effect size with its one-sided permutation p-value; words of all four sets are resampled."""
        rows = self.rows()
        is_x, s = rows["is_x"], _associations(rows)
        layers = _effect_sizes(*_split(s, is_x))
        standardised = self.items()["association"]
        details = {
            "p_value": significance.is_greater(*_split(standardised, is_x)) if np.isfinite(layers).all() else None,
            "layers": [defined(size) for size in layers.tolist()],
        }
        n = len(is_x) + rows["cosines_a"].shape[-1] + rows["cosines_b"].shape[-1]
        return {self.name: Score(float(layers.mean()), n, self._resampled(rows), details)}

    def _resampled(self, rows: Items) -> NDArray[Any]:
        source = random()
        a, b = (_resampled_mean(rows[key], source) for key in ("cosines_a", "cosines_b"))
        targets = [np.flatnonzero(rows["is_x"] == side) for side in (True, False)]
        chosen = [side[source.integers(len(side), size=(RESAMPLES, len(side)))] for side in targets]
        s = a - b
        each = np.arange(RESAMPLES)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            sizes: NDArray[Any] = _effect_sizes(*(s[each, rows] for rows in chosen)).mean(-1)
        return sizes

    def tests(self, other: Self) -> dict[str, list[dict[str, Any]]]:
        signs = np.where(self.items()["is_x"], 1.0, -1.0)
        values = (signs * metric.items()["association"] for metric in (self, other))
        return {self.name: [significance.paired_permutation(*values)]}


def _resampled_mean(cosines: NDArray[Any], source: np.random.Generator) -> NDArray[Any]:
    """Mean over resampled attributes: (targets, layers, n) to (RESAMPLES, targets, layers)."""
    n = cosines.shape[-1]
    weights = source.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    return np.moveaxis(cosines @ weights.T, -1, 0)


def _associations(rows: Items) -> NDArray[Any]:
    """s(w) of every target at every layer, shape (targets, layers)."""
    s: NDArray[Any] = rows["cosines_a"].mean(-1) - rows["cosines_b"].mean(-1)
    return s


def _standardised(s: NDArray[Any]) -> NDArray[Any]:
    """s(w) over its standard deviation; the difference of its means over X and Y is the effect size."""
    result: NDArray[Any] = s / s.std(0, ddof=1)
    return result


def _split(s: NDArray[Any], is_x: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    return s[is_x], s[~is_x]


def _effect_sizes(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Effect size of each layer, from s(w) of shape (…, targets, layers)."""
    spread = np.concatenate([x, y], -2).std(-2, ddof=1)
    sizes: NDArray[Any] = (x.mean(-2) - y.mean(-2)) / spread
    return sizes


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of all pairs of vectors, (layers, n, width) and (layers, m, width) to (n, layers, m), in float64."""
    return (normalize(first.double(), dim=-1) @ normalize(second.double(), dim=-1).mT).transpose(0, 1)


class WeatScorer:
    """The texts of a test, tokenized once, to be put to any number of models."""

    def __init__(self, test: AssociationTest, tokenizer: PreTrainedTokenizerBase, kind: Kind = "masked") -> None:
        self.test = test
        self.pad_id = padding_id(tokenizer)
        self.texts = list(dict.fromkeys([*test.x, *test.y, *test.a, *test.b]))
        self.ids: list[list[int]]
        """Per text, its tokens."""
        self.counted: list[list[int]]
        """Per text, which tokens its vector is the mean of."""
        if kind == "causal" and test.protocol == "weat":
            start = start_token(tokenizer)
            self.ids = [[start, *word_pieces(text, tokenizer)] for text in self.texts]
            self.counted = [[0, *[1] * (len(ids) - 1)] for ids in self.ids]
        else:
            encoded = tokenizer(self.texts, return_special_tokens_mask=True)
            special, self.ids = encoded["special_tokens_mask"], encoded["input_ids"]
            is_word = test.protocol == "weat"
            self.counted = [[1 - mark * is_word for mark in marks] for marks in special]
        for text, ids in zip(self.texts, self.ids, strict=True):
            check_length(ids, tokenizer, f"{test.name}, {text!r}")

    def vectors(self, model: PreTrainedModel, budget: TokenBudget) -> Tensor:
        """Vectors of all texts at the layers that count, shape (layers, texts, width)."""
        found: dict[int, Tensor] = {}

        def work(batch: list[int]) -> None:
            ids, attention = padded([self.ids[i] for i in batch], self.pad_id, model.device)
            counted, _ = padded([self.counted[i] for i in batch], 0, model.device)
            with OneDnnLinear():
                output = model.base_model(
                    input_ids=ids, attention_mask=attention, output_hidden_states=True, **without_cache(model)
                )
            layers = output.hidden_states[1:] if self.test.protocol == "weat" else (output.last_hidden_state,)
            weights = (counted / counted.sum(-1, keepdim=True)).unsqueeze(-1)
            means = (torch.stack(tuple(layers)).float() * weights).sum(2).cpu()
            found.update(zip(batch, means.unbind(1), strict=True))

        with evaluating(model):
            budget.run([len(ids) for ids in self.ids], model.device, work)
        return torch.stack([found[i] for i in range(len(self.ids))], 1).clone()

    def score(self, model: PreTrainedModel, budget: TokenBudget) -> Weat:
        """The metric of ``model``."""
        vectors = self.vectors(model, budget)
        place = {text: i for i, text in enumerate(self.texts)}
        x, y, a, b = (
            vectors[:, [place[text] for text in texts]]
            for texts in (self.test.x, self.test.y, self.test.a, self.test.b)
        )
        targets = torch.cat([x, y], 1)
        metric = Weat(self.test.name, {"target": [*self.test.x, *self.test.y]})
        size = targets.shape[1]
        metric.update(
            item=torch.arange(size),
            is_x=torch.arange(size) < x.shape[1],
            cosines_a=cosines(targets, a),
            cosines_b=cosines(targets, b),
        )
        return metric
