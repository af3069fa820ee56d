"""What a CLIP predicts of pictures of people, and how that depends on their group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lce.data.pictures.attributes import Attribute
from lce.data.pictures.batches import PictureBatches
from lce.data.pictures.table import Pictures
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator
from lce.localize.head_settings import HeadSettings
from lce.metrics.cross_fitted_lean import CrossFittedAssociation, Halves
from lce.metrics.group_association import GroupAssociation
from lce.metrics.items import Score
from lce.models.clip import Clip

LEAST_PEOPLE = 4
"""People of each group, below which nothing can be said."""
Rows = NDArray[np.bool_] | slice
"""Some of the views."""
ALL = slice(None)


@dataclass(frozen=True)
class Outcome:
    """What a model predicts of n views.

    Attributes:
        predicted: the class, (n).
        lean: the probability of the leaning classes, (n).
        similarities: to the classes, (n, classes), where they are kept.
    """

    predicted: NDArray[np.int64]
    lean: NDArray[np.float32]
    similarities: Tensor | None = None


class PictureAudit(ABC):
    """The views of the pictures, one row each: picture, person, block, group and label (−1 for none), by number.

    Raises:
        LceError: there are too few people of a group.
    """

    def __init__(self, settings: HeadSettings, clip: Clip, pictures: Pictures, attribute: Attribute) -> None:
        self.settings, self.clip, self.attribute, self.pictures = settings, clip, attribute, pictures
        self.batches = PictureBatches(
            pictures.pictures, clip.pixels, settings.views, settings.batch_size, settings.seed
        )
        shown = [pictures.pictures[view.picture] for view in self.batches.views]
        self.item = np.array([view.picture for view in self.batches.views])
        self.person = _numbers([picture.subject for picture in shown])
        self.block = _numbers([picture.block for picture in shown])
        self.group = np.array([-1 if picture.group is None else picture.group for picture in shown])
        self.label = np.array([-1 if picture.label is None else picture.label for picture in shown])
        if unknown := [name for name in settings.leaning or [] if name not in pictures.classes]:
            raise LceError(f"leaning: {unknown[0]!r} is none of the classes, {', '.join(pictures.classes)}")
        order = torch.randperm(int(self.block.max()) + 1, generator=generator(settings.seed, "halves")).numpy()
        self.half = order[self.block] % 2
        for number, group in enumerate(attribute.groups):
            found = len(set(self.person[self.group == number].tolist()))
            if found < LEAST_PEOPLE:
                raise LceError(
                    f"pictures: {found} people of the group {group.name}; at least {LEAST_PEOPLE} are needed"
                )

    @property
    @abstractmethod
    def similarities(self) -> Tensor:
        """The unedited model's similarities to the classes, (views, classes)."""

    @cached_property
    def leaning(self) -> NDArray[np.bool_]:
        """The classes that lean towards the first group, for each view, (views, classes).

        Those that the settings name, or else the cross-fitted ones.
        """
        names = self.pictures.classes
        if self.settings.leaning is None:
            return self.cross_fitted_leaning
        return np.tile([name in self.settings.leaning for name in names], (len(self.group), 1))

    @cached_property
    def cross_fitted_leaning(self) -> NDArray[np.bool_]:
        """For each view, the classes of higher mean probability for the first group among the other half of blocks."""
        return self._cross_fitted_leaning(np.ones(len(self.half), bool))

    def _cross_fitted_leaning(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The same by the ``chosen`` views alone."""
        probabilities = self._probabilities(self.similarities).numpy().astype(float)
        halves = Halves(self.half, probabilities, np.ones(len(self.half)))
        one, other = ((chosen & (self.group == group))[None].astype(float) for group in (0, 1))
        by_side = np.concatenate([halves.leaning(one, other, side) for side in (0, 1)])
        return np.asarray(by_side[self.half])

    def _probabilities(self, similarities: Tensor) -> Tensor:
        return (similarities * self.clip.scale).softmax(1)

    def outcome(self, similarities: Tensor, place: slice = ALL, leaning: NDArray[np.bool_] | None = None) -> Outcome:
        """What is predicted of the views at ``place`` by their ``similarities`` to the classes (n, classes)."""
        probabilities = self._probabilities(similarities)
        lean = (probabilities * torch.from_numpy(self.leaning if leaning is None else leaning)[place]).sum(1)
        return Outcome(probabilities.argmax(1).numpy(), lean.numpy(), similarities)

    @cached_property
    def unedited(self) -> GroupAssociation:
        return self.unedited_among(ALL)

    @cached_property
    def unedited_scores(self) -> dict[str, Score]:
        """Its scores, resampled."""
        return self.unedited.scores()

    def unedited_among(self, rows: Rows) -> GroupAssociation:
        """The unedited model's measures, over some of the views."""
        if self.settings.leaning is None:
            return self.cross_fitted_among(rows)
        return self.association(self.outcome(self.similarities), rows)

    def cross_fitted_among(self, rows: Rows = ALL) -> GroupAssociation:
        """The same, the leaning classes cross-fitted whatever the settings name."""
        metric = CrossFittedAssociation(*self._about)
        chosen = np.zeros(len(self.half), bool)
        chosen[rows] = True
        outcome = self.outcome(self.similarities, leaning=self._cross_fitted_leaning(chosen))
        probabilities = self._probabilities(self.similarities)
        self._fill(metric, outcome, rows, {"half": self.half, "probabilities": probabilities.numpy()})
        return metric

    def association(self, outcome: Outcome, rows: Rows = ALL) -> GroupAssociation:
        """The measures of an ``outcome``, over some of the views."""
        metric = GroupAssociation(*self._about)
        self._fill(metric, outcome, rows, {})
        return metric

    @property
    def _about(self) -> tuple[str, int, bool]:
        return self.attribute.name, len(self.pictures.classes), self.settings.matched is not None

    def _fill(
        self, metric: GroupAssociation, outcome: Outcome, rows: Rows, more: dict[str, NDArray[np.generic]]
    ) -> None:
        columns = {
            "item": self.item, "person": self.person, "block": self.block, "group": self.group, "label": self.label,
            "predicted": outcome.predicted, "lean": outcome.lean, **more,
        }  # fmt: skip
        chosen = {name: np.ascontiguousarray(values[rows]) for name, values in columns.items()}
        metric.update(**{name: torch.from_numpy(values) for name, values in chosen.items()})


def _numbers(names: list[str]) -> NDArray[np.int64]:
    """Each name by its number in the alphabet of all of them."""
    return np.unique(np.array(names), return_inverse=True)[1]
