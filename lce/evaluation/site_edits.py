"""Edits of states made and measured: features by several rules, directions, and random features, on held-out jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lce.config import Kind
from lce.edit.site_edit import DirectionEdit, FeatureEdit, SiteEdit
from lce.evaluation.cross_fitted import cross_fitted, halves
from lce.evaluation.evaluator import Evaluator
from lce.foundations.errors import LceError
from lce.foundations.seeds import derive
from lce.localize.directions import occupation_direction, pronoun_direction
from lce.localize.feature_settings import DirectionName, FeatureSettings, RuleName
from lce.localize.feature_units import FeatureUnits, Reader, Reading
from lce.localize.features import select_features
from lce.localize.selection import Selection
from lce.metrics.items import ItemMetric, differences, interval
from lce.metrics.occupation_pronouns import OCCUPATIONS, SENTENCES
from lce.metrics.suite import all_scores
from lce.models.autoencoder_files import load_autoencoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHOOSING, HELD_OUT, ANSWERS = "occupation_pronouns", "occupation_pronouns_held_out", "forced_choice"
ABOUT_JOBS = (CHOOSING, HELD_OUT, ANSWERS)
"""Metrics whose items are about occupations, so that they can be measured on those that an edit was not chosen by."""


class SiteEdits:
    """Edits of one model at one site, each chosen by all occupations or by some of them.

    Raises:
        LceError: the autoencoder cannot be used, or is for another model or site.
    """

    def __init__(
        self, settings: FeatureSettings, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: Kind
    ) -> None:
        self.settings, self.model = settings, model
        autoencoder = load_autoencoder(settings.sae, settings.normalisation)
        self.units = FeatureUnits.of(model, autoencoder, settings.site)
        self.reader = Reader(model, tokenizer, kind, self.units.site)
        self.contexts = settings.contexts or SENTENCES

    @cached_property
    def activations(self) -> Reading:
        return self.reader.activations(self.units.autoencoder, self.contexts, self.settings.tokens)

    @cached_property
    def attributions(self) -> Reading:
        return self.reader.attributions(self.units.autoencoder, SENTENCES)

    @cached_property
    def states(self) -> Reading:
        """Mean states, where a pronoun may come next."""
        return self.reader.states(SENTENCES, "last")

    def selection(self, rule: RuleName | None = None, jobs: Sequence[int] | None = None) -> Selection:
        """The features that a rule, by default that of the settings, selects by ``jobs``, by default by all."""
        rule = rule or self.settings.rule
        numbers = list(range(len(OCCUPATIONS)) if jobs is None else jobs)
        attributions = self.attributions.among(numbers) if rule == "attribution" else None
        asked = replace(self.settings, rule=rule)
        return select_features(self.units, self.activations.among(numbers), asked, attributions)

    def features(self, scale: float, rule: RuleName | None = None, jobs: Sequence[int] | None = None) -> FeatureEdit:
        selection = self.selection(rule, jobs)
        return FeatureEdit(self.units, selection, self.activations, scale, positions=self.settings.positions)

    def direction(self, name: DirectionName, alpha: float, jobs: Sequence[int] | None = None) -> DirectionEdit:
        if name == "occupations":
            states = self.states if jobs is None else self.states.among(list(jobs))
            found = occupation_direction(self.reader, states)
        else:
            found = pronoun_direction(self.reader)
        return DirectionEdit(found, alpha, positions=self.settings.positions)


@dataclass(frozen=True)
class Trial:
    """An edit that is to be measured: the ``whole`` one, chosen by all occupations, and one chosen by each half."""

    name: str
    strength: float
    whole: SiteEdit
    by_half: tuple[SiteEdit, SiteEdit] | None
    """None where nothing is chosen by occupations: the whole edit is measured on all of them."""

    @property
    def is_control(self) -> bool:
        return self.by_half is None

    @property
    def count(self) -> int:
        """Features that it concerns, of the whole edit; 1 direction."""
        return self.whole.selection.count if isinstance(self.whole, FeatureEdit) else 1


def trials(edits: SiteEdits) -> Iterator[Trial]:
    """All edits that the settings ask for: the rule's first, then what it is compared with."""
    settings, parts = edits.settings, halves(edits.settings.seed)
    for rule in (settings.rule, *settings.compare):
        for scale in settings.scale:
            one, other = (edits.features(scale, rule, part) for part in parts)
            yield Trial(rule, scale, edits.features(scale, rule), (one, other))
    for name in settings.directions:
        for alpha in settings.alpha:
            first, second = (edits.direction(name, alpha, part) for part in parts)
            yield Trial(f"direction {name}", alpha, edits.direction(name, alpha), (first, second))
    for kind, is_matched in (("random", False), ("matched", True)):
        for scale in settings.scale:
            whole = edits.features(scale)
            for draw in range(settings.random_baselines):
                drawn = whole.random_baseline(derive(settings.seed, draw), is_matched)
                yield Trial(f"{kind} {draw + 1}", scale, drawn, None)


class Measured:
    """What was measured of the unedited model, and what edits of it are compared with that.

    Args:
        evaluator: measures a model.
        total: how many edits there will be, for the progress bar.
    """

    def __init__(self, evaluator: Evaluator, edits: SiteEdits, total: int) -> None:
        self.evaluator, self.edits = evaluator, edits
        self.parts = halves(edits.settings.seed)
        self.names = [*evaluator.suite.measures, *evaluator.texts]
        if HELD_OUT not in self.names:
            raise LceError(f"evaluation.metrics: expected {CHOOSING} among them, by which features are compared")
        self.bar = tqdm(total=1 + total, desc="Edits", disable=None)
        metrics = self._stage("unedited", lambda: evaluator.metrics(edits.model))
        self.before = {metric.name: metric for metric in metrics}

    def row(self, trial: Trial, is_costed: bool = True) -> tuple[dict[str, Any], dict[str, ItemMetric]]:
        """What the result says of an edit, and the metrics about occupations behind it.

        Args:
            is_costed: measure what the edit does elsewhere, too.
        """
        return self._stage(f"{trial.name}, {trial.strength:g}", lambda: self._row(trial, is_costed))

    def _stage(self, title: str, measure: Callable[[], Any]) -> Any:
        self.bar.set_postfix_str(title)
        found = measure()
        self.bar.update()
        return found

    def _row(self, trial: Trial, is_costed: bool) -> tuple[dict[str, Any], dict[str, ItemMetric]]:
        model = self.edits.model
        if trial.by_half is None:
            with trial.whole.applied(model):
                about_jobs = self._only(model, (CHOOSING, HELD_OUT))
        else:
            wanted = [name for name in ABOUT_JOBS if name in self.names]
            about_jobs = cross_fitted(trial.by_half, self.parts, model, lambda one: self._only(one, wanted))
        scores = all_scores(about_jobs)
        if is_costed:
            with trial.whole.applied(model):
                others = [name for name in self.names if name not in ABOUT_JOBS]
                scores |= all_scores(self._only(model, others))
        against = {metric.name: differences(metric, self.before[metric.name])[metric.name] for metric in about_jobs}
        metrics = {metric.name: metric for metric in about_jobs}
        row = {
            "name": trial.name,
            "strength": trial.strength,
            "count": trial.count,
            "scores": scores,
            "differences": against,
            "closed": closed(self.before[HELD_OUT], metrics[HELD_OUT]),
        }
        return row, metrics

    def _only(self, model: PreTrainedModel, names: Sequence[str]) -> list[ItemMetric]:
        return self.evaluator.metrics(model, [name for name in self.names if name not in names])


def closed(before: ItemMetric, after: ItemMetric) -> dict[str, Any]:
    """The share of a gap that an edit closes, with its paired bootstrap interval: 1 is all, beyond 1 it is reversed."""
    first, second = (metric.scores()[metric.name] for metric in (before, after))
    return {
        "value": 1 - second.value / first.value,
        "interval": interval(1 - second.resampled / first.resampled),
        "n": first.n,
    }
