"""Edits that are chosen by some occupations and measured on others: two halves, each tested by the edit of the other.

The scores are those of one model per half, put together, so that every occupation counts once and none was seen by the
edit that it is measured under.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, TypeVar

import torch

from lce.edit.site_edit import SiteEdit
from lce.foundations.seeds import generator
from lce.metrics.items import ItemMetric
from lce.metrics.occupation_pronouns import OCCUPATIONS, is_male_dominated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Metric = TypeVar("Metric", bound=ItemMetric)


def halves(seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the occupations in two halves, each with half of both sides' occupations."""
    parts: tuple[list[int], list[int]] = ([], [])
    for is_male in (True, False):
        numbers = [i for i, job in enumerate(OCCUPATIONS) if is_male_dominated(job) == is_male]
        order = torch.randperm(len(numbers), generator=generator(seed, "halves", str(is_male))).tolist()
        for place, i in enumerate(order):
            parts[place % 2].append(numbers[i])
    return sorted(parts[0]), sorted(parts[1])


def about(metric: Metric, occupations: Sequence[int]) -> Metric:
    """The same metric over the items about these ``occupations``."""
    rows = metric.items()
    return metric.among(item for item, job in zip(rows["item"], rows["occupation"], strict=True) if job in occupations)


def joined(first: Metric, second: Metric) -> Metric:
    """One metric with the items of both."""
    whole = deepcopy(first)
    whole.update(**{column: torch.from_numpy(values) for column, values in second.items().items()})
    return whole


def cross_fitted(
    edits: Sequence[SiteEdit],
    parts: Sequence[Sequence[int]],
    model: PreTrainedModel,
    measure: Callable[[PreTrainedModel], list[ItemMetric]],
) -> list[ItemMetric]:
    """The metrics of ``model`` where each half is measured under the edit that was chosen by the other one.

    Args:
        edits: by which half each was chosen, in the order of ``parts``.
        measure: gives metrics about occupations.
    """
    found = []
    for edit, others in zip(edits, reversed(parts), strict=True):
        with edit.applied(model):
            found.append([about(metric, others) for metric in measure(model)])
    return [joined(*pair) for pair in zip(*found, strict=True)]
