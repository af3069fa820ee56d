"""How strongly what a model predicts of pictures of people depends on their group.

Cramér's V between group and predicted class is √(χ² / (n · min(r − 1, c − 1))), which chance alone lifts where there
are many classes and few pictures; the bias-corrected one (Bergsma 2013) takes off what chance is expected to give. The
lean is the probability of the classes that lean towards the first group, on average over pictures of the first group,
less that over pictures of the second.

Each view counts as an observation. Those of one person are alike, so people are resampled, not views. Where pictures
are matched, alike but for the group, they make up blocks: intervals resample blocks, and the null exchanges groups
within them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lce.metrics.items import RESAMPLES, ItemMetric, Score, random
from lce.metrics.significance import paired_permutation

V, CORRECTED_V, LEAN, ACCURACY = "cramers_v", "cramers_v_corrected", "lean", "accuracy"
CHUNKS = 20
"""Parts in which people are resampled, so that many people fit into memory."""
Floats = NDArray[np.float64]


class ByPerson(NamedTuple):
    """Sums over the views of each of m people.

    Attributes:
        group: 0 or 1, or −1 for neither, (m).
        block: its number, (m).
        predicted: of each class, (m, classes).
        lean: of the probability of the leaning classes, (m).
        right, labelled: right predictions, and views that have a class, (m).
    """

    group: NDArray[np.int64]
    block: NDArray[np.int64]
    predicted: Floats
    lean: Floats
    right: Floats
    labelled: Floats


class GroupAssociation(ItemMetric):
    """Rows are views: of picture ``item``, of a person in a block, of a group and a class (−1 for none), with what is
    predicted.

    Args:
        classes: number of classes.
        is_matched: whether the people of a block are alike but for the group; else a block only is resampled together.
    """

    columns: tuple[str, ...] = ("item", "person", "block", "group", "label", "predicted", "lean")

    def __init__(self, name: str, classes: int, is_matched: bool) -> None:
        super().__init__(name)
        self.classes, self.is_matched = classes, is_matched

    @property
    def by_person(self) -> ByPerson:
        rows = self.items()
        _, first, person = np.unique(rows["person"], return_index=True, return_inverse=True)
        _, block = np.unique(rows["block"][first], return_inverse=True)
        people = len(first)
        predicted = np.zeros((people, self.classes))
        np.add.at(predicted, (person, rows["predicted"]), 1)
        is_labelled, is_right = rows["label"] >= 0, rows["label"] == rows["predicted"]

        def summed(values: NDArray[Any]) -> Floats:
            return np.bincount(person, values, people).astype(float)

        return ByPerson(
            rows["group"][first], block, predicted,
            summed(rows["lean"]), summed(is_right & is_labelled), summed(is_labelled),
        )  # fmt: skip

    def compute(self) -> Tensor:
        return torch.tensor(self.scores()[LEAN].value)

    def scores(self) -> dict[str, Score]:
        rows, people = self.items(), self.by_person
        blocks = int(people.block.max()) + 1
        resampled = random().multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES)
        grouped, labelled = (len(np.unique(rows["item"][rows[column] >= 0])) for column in ("group", "label"))
        counts = {ACCURACY: labelled}
        whole = self.values()
        parts = [_weighted(people, drawn[:, people.block].astype(float)) for drawn in np.array_split(resampled, CHUNKS)]
        return {
            name: Score(whole[name], counts.get(name, grouped), np.concatenate([part[name] for part in parts]))
            for name in whole
        }

    def values(self) -> dict[str, float]:
        """The scores without what is behind them."""
        people = self.by_person
        return {name: float(found[0]) for name, found in _weighted(people, np.ones((1, len(people.group)))).items()}

    def null(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        """V, corrected V and lean with groups exchanged at random, each (resamples,).

        They are exchanged among the people of each block, or among all people where these are not matched.
        """
        people = self.by_person
        parts = []
        for one, other in self.exchanged(resamples):
            plain, corrected = cramers_v(np.stack([one @ people.predicted, other @ people.predicted], 1))
            parts.append({V: plain, CORRECTED_V: corrected, LEAN: _lean(people, one, other)})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def exchanged(self, resamples: int) -> Iterator[tuple[Floats, Floats]]:
        """Who is of the first group, and who of the second, after each exchange, some exchanges at a time: two of
        (exchanges, people).
        """
        people = self.by_person
        grouped = (people.group >= 0).nonzero()[0]
        if self.is_matched:
            grouped = grouped[np.argsort(people.block[grouped], kind="stable")]
        source = random()
        for numbers in np.array_split(np.arange(resamples), min(CHUNKS, resamples)):
            keys = source.random((len(numbers), len(grouped))) + (people.block[grouped] if self.is_matched else 0)
            shuffled = people.group[grouped][np.argsort(keys, 1)]
            one, other = (np.zeros((len(numbers), len(people.group))) for _ in range(2))
            one[:, grouped], other[:, grouped] = shuffled == 0, shuffled == 1
            yield one, other

    def tests(self, other: GroupAssociation) -> dict[str, list[dict[str, Any]]]:
        """Of the lean and the accuracy: permutation tests that exchange the two models within people."""
        here, there = self.by_person, other.by_person
        sign = np.where(here.group == 0, 1, -1)
        chosen, labelled = here.group >= 0, here.labelled > 0
        pairs = {
            LEAN: [(sign * people.lean)[chosen] for people in (here, there)],
            ACCURACY: [people.right[labelled] for people in (here, there)],
        }
        return {name: [paired_permutation(first, second)] for name, (first, second) in pairs.items() if len(first) > 1}


def _weighted(people: ByPerson, weights: Floats) -> dict[str, Floats]:
    """All scores with people weighing as each row of ``weights`` (n, people) says: (n,)."""
    one, other = (weights * (people.group == group) for group in (0, 1))
    plain, corrected = cramers_v(np.stack([one @ people.predicted, other @ people.predicted], 1))
    with np.errstate(invalid="ignore"):
        accuracy = (weights @ people.right) / (weights @ people.labelled)
    return {LEAN: _lean(people, one, other), V: plain, CORRECTED_V: corrected, ACCURACY: accuracy}


def _lean(people: ByPerson, one: Floats, other: Floats) -> Floats:
    """The lean with people weighing as the rows of ``one`` (first group) and ``other`` (second group) say."""
    pictures = people.predicted.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (one @ people.lean) / (one @ pictures) - (other @ people.lean) / (other @ pictures)
    return found


def cramers_v(tables: Floats) -> tuple[Floats, Floats]:
    """Cramér's V and the bias-corrected one of contingency ``tables`` (n, rows, columns); empty columns do not count.

    Corrected after Bergsma (2013): with φ² = χ²/n, φ̃² = max(0, φ² − (r−1)(c−1)/(n−1)), r̃ = r − (r−1)²/(n−1) and c̃
    likewise, Ṽ = √(φ̃² / min(r̃−1, c̃−1)). NaN where a row is empty; 0 where there is one column, and the corrected one
    where there are as many columns as observations.
    """
    total = tables.sum((1, 2))
    rows, columns = tables.sum(2), tables.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = rows[:, :, None] * columns[:, None, :] / total[:, None, None]
        phi = np.where(expected > 0, (tables - expected) ** 2 / expected, 0).sum((1, 2)) / total
        r, c = np.full(len(tables), float(tables.shape[1])), (columns > 0).sum(1).astype(float)
        smaller = np.minimum(r, c) - 1
        plain = np.sqrt(phi / smaller)
        r_corrected, c_corrected = (count - (count - 1) ** 2 / (total - 1) for count in (r, c))
        smaller_corrected = np.minimum(r_corrected, c_corrected) - 1
        reduced = np.maximum(0, phi - (r - 1) * (c - 1) / (total - 1))
        corrected = np.sqrt(reduced / smaller_corrected)
    has_empty_row = (rows == 0).any(1)
    plain, corrected = (
        np.where(has_empty_row, np.nan, np.where(least > 0, found, 0))
        for found, least in ((plain, smaller), (corrected, smaller_corrected))
    )
    return plain, corrected
