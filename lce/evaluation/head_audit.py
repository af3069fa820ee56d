"""The audit of a CLIP: its bias, the attention heads that carry the concept, and what edits of them change.

Pictures go through the image encoder twice. The first time, what the heads write is summed up, and the unedited model's
predictions are kept; heads are selected by that. The second time, every edit is tried on each batch, from the first
layer on that it changes (`lce.models.image_states`). A positive control goes over them again
(`lce.evaluation.planted_head`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lce.data.pictures.attributes import Attribute
from lce.data.pictures.table import Pictures
from lce.edit.head_edit import HeadEdit
from lce.evaluation.picture_audit import Outcome, PictureAudit
from lce.foundations.errors import LceError
from lce.localize.head_settings import HeadEditName, HeadSettings
from lce.localize.head_statistics import HeadStatistics
from lce.localize.head_units import HeadUnits
from lce.localize.heads import Dictionary, HeadLocalizer, concept_direction, prompt_embeddings
from lce.localize.selection import Selection
from lce.models.clip import Clip
from lce.models.fast_linear import OneDnnLinear
from lce.models.image_states import ImageStates, Outputs
from lce.storage.checkpoint import Checkpoint


@dataclass(frozen=True)
class HeadTrial:
    """An edit of some heads that is to be measured.

    Attributes:
        role: chosen, single or random.
        is_first_order: whether only what the heads write into the embedding is changed, and no layer above reacts.
    """

    role: str
    selection: Selection
    edit: HeadEditName
    is_first_order: bool = False


class HeadAudit(PictureAudit):
    """The audit of one model on one set of pictures.

    Raises:
        LceError: the pictures or the settings do not fit the model, or there are too few people of a group.
    """

    def __init__(self, settings: HeadSettings, clip: Clip, pictures: Pictures, attribute: Attribute) -> None:
        super().__init__(settings, clip, pictures, attribute)
        self.units, self.checkpoint = HeadUnits.of(clip), Checkpoint(clip.name)
        self.general = _descriptions(settings.dictionary) or [*pictures.classes, *pictures.names]
        self.classes = prompt_embeddings(clip, pictures.classes, settings.templates)
        self.direction = concept_direction(clip, attribute, settings.templates)

    @cached_property
    def _first(self) -> tuple[HeadStatistics, Tensor]:
        """What the heads write, and the unedited model's similarities to the classes, (views, classes)."""
        statistics = HeadStatistics.empty(self.clip.tower, self.direction)
        similarities = []
        for _, pixels in self.batches.read("reading heads"):
            with OneDnnLinear():
                states = ImageStates.of(self.clip.tower, pixels.to(self.clip.device))
            statistics.add(states)
            similarities.append((states.embedding() @ self.classes.t()).cpu())
        return statistics, torch.cat(similarities)

    @property
    def statistics(self) -> HeadStatistics:
        return self._first[0]

    @property
    def similarities(self) -> Tensor:
        return self._first[1]

    @cached_property
    def localizer(self) -> HeadLocalizer:
        template = self.settings.templates[0]
        dictionary = Dictionary.of(self.clip, self.attribute, self.general, template)
        return HeadLocalizer(self.units, self.statistics, dictionary, self.settings)

    def edit(self, selection: Selection, name: HeadEditName) -> HeadEdit:
        return HeadEdit(self.units, selection, self.statistics, self.checkpoint, name)

    def measured(self, trials: Sequence[HeadTrial], kept: int = 0) -> list[Outcome]:
        """The outcome of each trial; of the first so many, the similarities to the classes are ``kept``."""
        true = [i for i, trial in enumerate(trials) if not trial.is_first_order]
        first = [i for i, trial in enumerate(trials) if trial.is_first_order]
        outputs = self._outputs([trials[i] for i in true])
        views = len(self.group)
        predicted, lean = np.zeros((len(trials), views), np.int64), np.zeros((len(trials), views), np.float32)
        similarities = torch.zeros(kept, views, len(self.classes))
        for place, pixels in self.batches.read(f"trying {len(trials)} edits"):
            with OneDnnLinear():
                states = ImageStates.of(self.clip.tower, pixels.to(self.clip.device))
                by_trial = ((true[i], embedding) for i, embedding in states.embeddings(outputs))
                by_term = zip(first, self._first_order(states, [trials[i] for i in first]), strict=True)
                for number, embedding in chain(by_trial, by_term):
                    found = self.outcome((embedding @ self.classes.t()).cpu(), place)
                    predicted[number, place], lean[number, place] = found.predicted, found.lean
                    if number < kept and found.similarities is not None:
                        similarities[number, place] = found.similarities
        return [
            Outcome(*pair, similarities[number] if number < kept else None)
            for number, pair in enumerate(zip(predicted, lean, strict=True))
        ]

    def _outputs(self, trials: Sequence[HeadTrial]) -> list[Outputs]:
        """The output projections of each trial, the same tensors where two edit the same heads of a layer alike."""
        known: dict[tuple[str, int, tuple[int, ...]], tuple[Tensor, Tensor]] = {}
        found: list[Outputs] = []
        for trial in trials:
            by_layer = self.units.by_layer(trial.selection)
            keys = {layer: (trial.edit, layer, tuple(heads)) for layer, heads in by_layer.items()}
            if any(key not in known for key in keys.values()):
                made = self.edit(trial.selection, trial.edit).outputs()
                for layer, key in keys.items():
                    known.setdefault(key, made[layer])
            found.append({layer: known[key] for layer, key in keys.items()})
        return found

    @torch.inference_mode()
    def _first_order(self, states: ImageStates, trials: Sequence[HeadTrial]) -> Iterator[Tensor]:
        """The embeddings with the terms of heads changed, and nothing else."""
        if not trials:
            return
        reading = self.statistics.reading
        terms, embedding = reading.head_terms(states), states.embedding()
        means = torch.einsum("lhk,lhdk->lhd", self.statistics.scaled.to(terms), reading.heads)
        read = reading.map.t() @ self.direction
        projected = reading.map @ read / read.square().sum()  # what a term loses for each unit of the concept in it
        for trial in trials:
            layers, heads = zip(*self.units.heads_of(trial.selection), strict=True)
            found = terms[:, layers, heads]
            if trial.edit != "zero":
                found = found - means[layers, heads]
            if trial.edit == "projection":
                found = (found @ self.direction)[..., None] * projected
            yield F.normalize(embedding - found.sum(1), dim=1)


def _descriptions(path: str | None) -> list[str]:
    """The lines of a text file; none where no file is named."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines() if path else []
    except (OSError, UnicodeDecodeError) as error:
        raise LceError(f"dictionary {path}: cannot be read as UTF-8 text ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def singles(audit: HeadAudit, is_first_order: bool) -> list[HeadTrial]:
    """The mean-ablation of every head by itself."""
    return [
        HeadTrial("single", audit.localizer.selected([report]), "mean", is_first_order)
        for report in audit.localizer.reports
    ]
