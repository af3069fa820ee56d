"""The lean where nobody says which classes lean: those that do so for the other half of the people.

Each half of the blocks is measured with the classes that lean towards the first group in the other half. The null finds
these classes anew for every exchange of groups, because the two halves choose for each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lce.metrics.group_association import LEAN, Floats, GroupAssociation
from lce.metrics.items import RESAMPLES


class Halves(NamedTuple):
    """Of n views, or sums over the views of n people.

    Attributes:
        half: 0 or 1, (n).
        probabilities: of the classes, (n, classes).
        views: how many there are of each, (n).
    """

    half: NDArray[np.int64]
    probabilities: Floats
    views: Floats

    def leaning(self, one: Floats, other: Floats, side: int) -> NDArray[np.bool_]:
        """The classes that lean in the half that is not ``side``, with weights (r, n) of both groups: (r, classes)."""
        means = [self._mean(weights * (self.half != side)) for weights in (one, other)]
        return np.asarray(np.nan_to_num(means[0]) > np.nan_to_num(means[1]))

    def lean(self, one: Floats, other: Floats) -> Floats:
        """The cross-fitted lean with weights (r, n) of both groups, (r)."""
        found = 0.0
        for weights, sign in ((one, 1), (other, -1)):
            for side in (0, 1):
                of_half = (weights * (self.half == side)) @ self.probabilities
                found = found + sign * (of_half * self.leaning(one, other, side)).sum(1) / (weights @ self.views)
        return np.asarray(found)

    def _mean(self, weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((weights @ self.probabilities) / (weights @ self.views)[:, None])


class CrossFittedAssociation(GroupAssociation):
    """The measures of an unedited model whose leaning classes are cross-fitted: rows have their half, and the
    probabilities of all classes, (rows, classes).
    """

    columns = (*GroupAssociation.columns, "half", "probabilities")

    def null(self, resamples: int = RESAMPLES) -> dict[str, Floats]:
        rows = self.items()
        _, first, person, views = np.unique(rows["person"], return_index=True, return_inverse=True, return_counts=True)
        sums = np.zeros((len(first), self.classes))
        np.add.at(sums, person, rows["probabilities"])
        halves = Halves(rows["half"][first], sums, views.astype(float))
        leans = [halves.lean(one, other) for one, other in self.exchanged(resamples)]
        return super().null(resamples) | {LEAN: np.concatenate(leans)}
