"""Which attention heads carry a concept: the concept's direction, each head's score and texts, and the selection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lce.data.pictures.attributes import Attribute
from lce.data.pictures.prompts import filled
from lce.foundations.errors import LceError
from lce.localize.head_settings import HeadSettings
from lce.localize.head_statistics import HeadStatistics
from lce.localize.head_units import Head, HeadUnits
from lce.localize.selection import Selection
from lce.localize.text_span import Explained, text_span
from lce.models.clip import Clip

RULE = "heads"


def prompt_embeddings(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """The mean embedding of all ``templates`` about each name, of length 1: (names, D)."""
    every = clip.text_embeddings([filled(template, name) for name in names for template in templates])
    return F.normalize(every.view(len(names), len(templates), -1).mean(1), dim=1)


def concept_direction(clip: Clip, attribute: Attribute, templates: Sequence[str]) -> Tensor:
    """From the mean of the prompts about the second group to that about the first one, of length 1: (D).

    Raises:
        LceError: the model embeds the prompts about both alike.
    """
    one, other = (prompt_embeddings(clip, group.words, templates).mean(0) for group in attribute.groups)
    if float((one - other).norm()) < 1e-6:
        names = " and ".join(group.name for group in attribute.groups)
        raise LceError(f"model {clip.name}: embeds prompts about {names} alike; there is no direction between them")
    return F.normalize(one - other, dim=0)


@dataclass(frozen=True)
class Dictionary:
    """Texts that describe heads; the first ``demographic`` of them name a group."""

    texts: list[str]
    demographic: int
    embeddings: Tensor

    @classmethod
    def of(cls, clip: Clip, attribute: Attribute, general: Sequence[str], template: str) -> Dictionary:
        """The attribute's words, and ``general`` descriptions without those that give one of its groups away."""
        telling = "|".join(map(re.escape, [*attribute.words, *attribute.also]))
        words = re.compile(rf"(?<!\w)({telling})s?(?!\w)", re.IGNORECASE)
        others = [text for text in dict.fromkeys(general) if not words.search(text)]
        texts = [*attribute.words, *others]
        return cls(texts, len(attribute.words), clip.text_embeddings([filled(template, text) for text in texts]))


@dataclass(frozen=True)
class HeadReport:
    """What is known of one head.

    Attributes:
        score: see `HeadStatistics.scores`.
        texts: what it writes, in the order of the variance explained.
        rank: of the first text that names a group, counted from 1; None if there is none among the texts.
    """

    layer: int
    head: int
    score: float
    texts: list[Explained]
    rank: int | None

    def as_json(self, dictionary: Dictionary) -> dict[str, Any]:
        named = [found.share for found in self.texts if found.text < dictionary.demographic]
        texts = [{"text": dictionary.texts[found.text], "share": found.share} for found in self.texts]
        about = {"layer": self.layer, "head": self.head, "score": self.score, "rank": self.rank}
        return {**about, "explained_by_groups": sum(named), "texts": texts}


class HeadLocalizer:
    """Ranks all heads by what they write, and selects some."""

    def __init__(
        self, units: HeadUnits, statistics: HeadStatistics, dictionary: Dictionary, settings: HeadSettings
    ) -> None:
        self.units, self.statistics, self.dictionary, self.settings = units, statistics, dictionary, settings

    @cached_property
    def reports(self) -> list[HeadReport]:
        """All heads, layer by layer."""
        scores, covariances = self.statistics.scores(), self.statistics.covariances
        found = []
        for layer, row in enumerate(scores.tolist()):
            for head, score in enumerate(row):
                terms = self.statistics.reading.heads[layer, head]
                texts = text_span(terms, covariances[layer, head], self.dictionary.embeddings, self.settings.texts)
                named = [i for i, text in enumerate(texts, 1) if text.text < self.dictionary.demographic]
                found.append(HeadReport(layer, head, score, texts, named[0] if named else None))
        return found

    @property
    def _last(self) -> int:
        """The rank up to which a text about a group has to come."""
        return self.settings.rank or self.settings.texts

    def ranked(self) -> list[HeadReport]:
        """The heads that a text about a group describes early, those of highest score first, ties by place."""
        early = [report for report in self.reports if report.rank is not None and report.rank <= self._last]
        if not early:
            return []
        scores = torch.tensor([report.score for report in early])
        order = torch.sort(-scores, stable=True).indices.tolist()
        return [early[i] for i in order]

    def selection(self, size: int | None = None) -> Selection:
        """The ``size`` heads of highest score among those that a text about a group describes early.

        Raises:
            LceError: there are fewer.
        """
        size = size or self.settings.size
        ranked = self.ranked()
        if len(ranked) < size:
            raise LceError(
                f"size: {size} heads are wanted, but only {len(ranked)} are described by a prompt about a group among "
                f"their first {self._last} texts; ask for fewer, or for more --texts or a later --rank"
            )
        return self.selected(ranked[:size])

    def selected(self, reports: Sequence[HeadReport]) -> Selection:
        """The selection of these heads."""
        places: list[Head] = [(report.layer, report.head) for report in reports]
        by_place = {(report.layer, report.head): report.as_json(self.dictionary) for report in reports}
        details: dict[str, list[dict[str, Any]]] = {}
        for layer, head in sorted(places):
            details.setdefault(self.units.site(layer), []).append(by_place[layer, head])
        return Selection(
            self.units.positions(places), self.units.shapes, RULE, self.units.fingerprint, self.units.fingerprint,
            self.units.kind, details,
        )  # fmt: skip
