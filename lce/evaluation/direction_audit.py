"""What a vision-language model sees inside and does not say: LALS by layer, its answers, and edits of a direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from lce.data.pictures.attributes import Attribute
from lce.edit.site_edit import DirectionEdit
from lce.evaluation.shown_pictures import OPEN, pictures_without_people, shown_pictures
from lce.foundations.errors import LceError
from lce.foundations.seeds import generator
from lce.localize.direction_settings import DirectionEditName, DirectionSettings
from lce.localize.direction_units import DirectionUnits
from lce.localize.directions import Direction
from lce.localize.lals import load_sentences
from lce.localize.text_states import kept_reference
from lce.localize.visual_leaning import (
    Measure,
    Openers,
    VisualLeaning,
    leaning_under,
    read_leaning,
    shuffled_labels,
)
from lce.metrics.picture_choice import PictureChoice
from lce.metrics.separation import separation
from lce.models.image_text import ImageText, Prompted
from lce.models.prefix import PrefixCache
from lce.models.shifts import DirectionShift, Shift

GENDER = "gender"
TEXTS = "texts"
"""Folder, in that of the experiment, in which the states of texts are kept."""
LEAST = 4
"""Pictures of each group, below which nothing can be said."""
LONGEST = 24
"""Tokens of an answer at most."""


class DirectionAudit:
    """The audit of one model on one set of pictures.

    Raises:
        LceError: the pictures or the settings do not fit, or there are too few pictures of a group.
    """

    def __init__(self, settings: DirectionSettings, model: ImageText, attribute: Attribute, table: Path) -> None:
        self.settings, self.model, self.attribute = settings, model, attribute
        folder = Path(settings.pictures)
        self.shown = shown_pictures(folder, table, attribute, settings.where, settings.matched)
        by = settings.chosen_by or settings.where
        self.chosen_by = shown_pictures(folder, table, attribute, by, settings.matched)
        self.without_people = pictures_without_people(folder, table, settings.without_people)
        for title, found in (("where", self.shown), ("chosen_by", self.chosen_by)):
            for number, group in enumerate(attribute.groups):
                count = int((found.groups == number).sum())
                if count < LEAST:
                    raise LceError(f"{title}: {count} pictures of the group {group.name}; at least {LEAST} are needed")
        last = len(model.layers)
        if settings.layers and max(settings.layers) > last:
            raise LceError(f"layers: the model has {last}, got {max(settings.layers)}")
        if settings.sentences == GENDER and attribute.name != GENDER:
            raise LceError(f"sentences: name a YAML file with texts about {attribute.name}; lce's own are about gender")
        self.sentences = load_sentences(settings.sentences)
        if settings.k > len(self.sentences):
            raise LceError(f"k: expected at most {len(self.sentences)}, as many as there are texts, got {settings.k}")
        self.measure = Measure(model.prompt(settings.question), settings.k, settings.top, settings.batch_size)

    @cached_property
    def choice(self) -> PictureChoice:
        asked = self.settings.choice
        return PictureChoice(self.model, self.model.prompt(asked.question, asked.start), asked.words)

    @property
    def words(self) -> list[list[str]]:
        """Words by which an answer names a group: those of the attribute, and of the forced choice."""
        pairs = zip(self.attribute.groups, self.settings.choice.words, strict=True)
        return [[*group.words, *words] for group, words in pairs]

    @cached_property
    def units(self) -> DirectionUnits:
        reference = kept_reference(self.model, self.sentences, Path(self.settings.experiment) / TEXTS)
        return DirectionUnits.of(self.model, reference, self.settings.positions)

    @property
    def ambiguous(self) -> NDArray[np.bool_]:
        """Which pictures are of neither group; all, where none is."""
        is_open = self.shown.groups == OPEN
        return is_open if is_open.any() else ~is_open

    def leaning(self, pictures: Openers, shuffles: int = 0, scores_alone: bool = False) -> VisualLeaning:
        """LALS of these pictures by the model as it is at the moment, with so many shuffles of the texts' labels."""
        labels = shuffled_labels(self.units.reference.labels, shuffles, self.settings.seed)
        return read_leaning(self.model, self.units.reference, pictures, self.measure, labels, scores_alone)

    def leaning_under(
        self, pictures: Openers, edits: Sequence[DirectionEdit]
    ) -> list[tuple[NDArray[np.float64], float]]:
        """Of each edit, the scores of these pictures in its layer, right behind it, and the size of what it adds: see
        `Shifted`.
        """
        layers = [self.units.sites.index(edit.site) for edit in edits]
        shifts: dict[int, list[Shift]] = {}
        for layer, edit in zip(layers, edits, strict=True):
            shifts.setdefault(layer, []).append(edit.shift)
        found = leaning_under(self.model, self.units.reference, pictures, self.measure, shifts)
        left = {
            layer: zip(shifted.scores.double().numpy(), shifted.sizes.tolist(), strict=True)
            for layer, shifted in found.items()
        }
        return [next(left[layer]) for layer in layers]

    def leaning_at(self, pictures: Openers, layer: int) -> NDArray[np.float64]:
        """The scores of these pictures in a ``layer`` of the unedited model."""
        nothing = {layer: [DirectionShift(self.vector(layer), 0.0)]}
        found = leaning_under(self.model, self.units.reference, pictures, self.measure, nothing)
        scores: NDArray[np.float64] = found[layer].scores[0].double().numpy()
        return scores

    @cached_property
    def _known(self) -> VisualLeaning:
        """That of the pictures by which a layer is chosen."""
        return self.leaning(self.chosen_by.openers)

    @cached_property
    def by_layer(self) -> list[dict[str, Any]]:
        """For each layer, the area under the curve between the groups of the pictures by which one is chosen."""
        return [
            {"layer": layer, "separation": separation(scores, self.chosen_by.groups)}
            for layer, scores in enumerate(self._known.scores.numpy())
        ]

    @cached_property
    def layer(self) -> int:
        """The layer, counted from 0, in which the groups are told apart best, the first of several."""
        allowed = [number - 1 for number in self.settings.layers or range(1, len(self.by_layer) + 1)]
        if len(allowed) == 1:
            return allowed[0]
        return max(allowed, key=lambda layer: (self.by_layer[layer]["separation"], -layer))

    def vector(self, layer: int) -> Tensor:
        """The direction of a ``layer``, from the second group to the first, of length 1: (width)."""
        if self.settings.source == "texts":
            return self.units.reference.direction(layer)
        one, other = self._group_means(layer)
        return normalize(one - other, dim=0)

    def edit(self, layer: int, name: DirectionEditName = "zero", vector: Tensor | None = None) -> DirectionEdit:
        """The edit of this ``name`` of the direction of a ``layer``, or of another ``vector`` there."""
        units, settings = self.units, self.settings
        found = self.vector(layer) if vector is None else vector
        centre = float(torch.stack(self._group_means(layer)).mean(0) @ found) if name == "mean" else 0.0
        direction = Direction(found, units.sites[layer], units.model, f"{self.attribute.name} by {settings.source}")
        return DirectionEdit(
            direction, settings.alpha, centre, positions=settings.positions, may_be_void=vector is not None
        )

    def _group_means(self, layer: int) -> list[Tensor]:
        """The mean state of the visual tokens of each group's pictures, of those by which the layer is chosen."""
        means, groups = self._known.means[layer], torch.from_numpy(self.chosen_by.groups)
        return [means[groups == number].mean(0) for number in (0, 1)]

    def random_vectors(self) -> Iterator[Tensor]:
        """Random directions of length 1, as many as the settings say."""
        width = self.units.reference.states.shape[-1]
        for number in range(self.settings.random_directions):
            random = generator(self.settings.seed, "random direction", number)
            yield normalize(torch.randn(width, generator=random), dim=0)

    def prompted(self, opened: Openers, prompt: str) -> Prompted:
        """What the model reads of pictures."""
        return Prompted(self.model, opened, prompt, self.settings.batch_size)

    def odds(self, opened: Openers) -> NDArray[np.float64]:
        """log P of the first group's answer less that of the second's, (n), by the model as it is at the moment."""
        batches = self.prompted(opened, self.choice.prompt)
        logs = torch.cat([self.choice.log_probabilities(inputs) for inputs in batches]).double().numpy()
        difference: NDArray[np.float64] = logs[:, 0] - logs[:, 1]
        return difference

    def odds_under(self, edits: Sequence[DirectionEdit], opened: Openers) -> list[NDArray[np.float64]]:
        """The same under each of the ``edits``; what the decoder computes before a site is computed once."""
        found, cache, title = [], None, f"trying {len(edits)} directions"
        for edit in tqdm(edits, desc=title, leave=False, delay=2, disable=None):
            if cache is None or cache.site != edit.site:
                cache = PrefixCache(self.model.model, edit.site)
            with cache.reused(), edit.applied(self.model.model):
                found.append(self.odds(opened))
        return found

    def answers(self, opened: Openers, prompt: str) -> list[str]:
        """What the model says of each picture, by greedy decoding."""
        said: list[str] = []
        for inputs in tqdm(self.prompted(opened, prompt), desc="answering", leave=False, delay=2, disable=None):
            found = self.model.model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
            new = found[:, inputs["input_ids"].shape[1] :]
            said += self.model.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return said
