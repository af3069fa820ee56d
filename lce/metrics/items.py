"""Scores that keep the items behind them: how many there are, how sure the score is, and which ones changed.

A score of 262 sentence pairs has a standard error of about 3 points, so a number alone misleads. Each metric here
keeps one row an item; from these come the score, its 95 % percentile-bootstrap interval, and the paired
comparison of two models on the same items. Every bootstrap starts from one seed, so that two models measured on the
same items are resampled alike, and the differences of their resampled scores are the paired bootstrap (Efron and
Tibshirani 1993).
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lce.foundations.seeds import derive

RESAMPLES = 2000
"""How often the items are resampled in a bootstrap."""

CONFIDENCE = (2.5, 97.5)
"""Percentiles between which an interval lies."""

Items = dict[str, NDArray[Any]]
"""One column per name, one row per item."""


def random() -> np.random.Generator:
    """The random numbers of every bootstrap and permutation test: always the same."""
    return np.random.default_rng(derive("resampling"))


def interval(resampled: NDArray[Any]) -> tuple[float, float] | None:
    """95 % percentile interval of a score's ``resampled`` values; None where none of them is defined."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, CONFIDENCE)
    return float(low), float(high)


def defined(value: float) -> float | None:
    """``value``, or None if it is not a finite number, for which JSON has no notation."""
    return value if isfinite(value) else None


@dataclass(frozen=True)
class Score:
    """A score, the number ``n`` of items behind it, its ``resampled`` values (RESAMPLES,), and further details."""

    value: float
    n: int
    resampled: NDArray[Any] = field(repr=False, compare=False)
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"value": defined(self.value), "interval": interval(self.resampled), "n": self.n, **self.details}


class ItemMetric(Metric):
    """A torchmetrics metric with one row per item in its ``columns``.

    Args:
        name: the name of its first score, or what the names of all its scores begin with.
        texts: texts that describe the items to a reader: columns indexed by item number.
    """

    is_differentiable = False
    full_state_update = False
    columns: tuple[str, ...] = ("item",)

    def __init__(self, name: str, texts: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__()
        self.name = name
        self.texts = dict(texts or {})
        for column in self.columns:
            self.add_state(column, [], dist_reduce_fx="cat")

    def update(self, **columns: Tensor) -> None:
        """Add rows: a tensor of shape (rows,) for each of the ``columns``."""
        for column in self.columns:
            getattr(self, column).append(columns[column])

    def items(self) -> Items:
        """All rows."""
        return {column: dim_zero_cat(getattr(self, column)).cpu().numpy() for column in self.columns}

    def is_finite(self) -> bool:
        """Whether all values that the model gave are finite numbers."""
        return all(bool(dim_zero_cat(getattr(self, column)).isfinite().all()) for column in self.columns)

    def among(self, numbers: Iterable[int]) -> Self:
        """The same metric over those of its items that are in ``numbers``."""
        rows = self.items()
        wanted = np.isin(rows["item"], np.fromiter(numbers, int))
        part = deepcopy(self)
        part.reset()
        part.update(**{column: torch.from_numpy(values[wanted]) for column, values in rows.items()})
        return part

    def described(self) -> dict[str, Any]:
        """All rows with their texts."""
        rows = self.items()
        texts = {name: [values[i] for i in rows["item"]] for name, values in self.texts.items()}
        return {"item": rows.pop("item"), **texts, **rows}

    @abstractmethod
    def scores(self) -> dict[str, Score]:
        """All scores by name; the first is what `compute` gives."""

    @abstractmethod
    def tests(self, other: Self) -> dict[str, list[dict[str, Any]]]:
        """Paired tests of each score against that of ``other``, which has the same items."""


def differences(first: ItemMetric, second: ItemMetric) -> dict[str, dict[str, Any]]:
    """Each score of ``first`` less that of ``second`` over the items that both have, with interval and paired tests."""
    common = set(first.items()["item"].tolist()) & set(second.items()["item"].tolist())
    first, second = first.among(common), second.among(common)
    others, tests = second.scores(), first.tests(second)
    return {
        name: {
            "value": defined(score.value - others[name].value),
            "interval": interval(score.resampled - others[name].resampled),
            "n": score.n,
            "tests": tests.get(name, []),
        }
        for name, score in first.scores().items()
    }
