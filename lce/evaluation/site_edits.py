"""Edits of states made and measured: features by several rules, directions, and random features, on held-out jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
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
from lce.metrics.items import ItemMetric, defined, differences, interval
from lce.metrics.occupation_pronouns import OCCUPATIONS, SENTENCES
from lce.metrics.suite import all_scores
from lce.models.autoencoder_files import load_autoencoder
from lce.models.prefix import PrefixCache
from lce.models.sites import Site, find_site

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

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
        sites = [find_site(model, name) for name in settings.direction_sites or [self.units.site.name]]
        self.directions = {site: Reader(model, tokenizer, kind, site) for site in sites}
        """Where directions are taken out, and what reads there."""
        self._states = cache(lambda site: self.directions[site].states(SENTENCES, "last"))

    @cached_property
    def activations(self) -> Reading:
        return self.reader.activations(self.units.autoencoder, self.contexts, self.settings.tokens)

    @cached_property
    def attributions(self) -> Reading:
        return self.reader.attributions(self.units.autoencoder, SENTENCES)

    def selection(
        self, rule: RuleName | None = None, jobs: Sequence[int] | None = None, count: int | None = None
    ) -> Selection:
        """The ``count`` features that a rule selects by ``jobs``; by default those of the settings, and all jobs."""
        rule, count = rule or self.settings.rule, count or self.settings.count
        numbers = list(range(len(OCCUPATIONS)) if jobs is None else jobs)
        attributions = self.attributions.among(numbers) if rule == "attribution" else None
        asked = replace(self.settings, rule=rule, count=count)
        return select_features(self.units, self.activations.among(numbers), asked, attributions)

    def features(
        self, scale: float, rule: RuleName | None = None, jobs: Sequence[int] | None = None, count: int | None = None
    ) -> FeatureEdit:
        selection = self.selection(rule, jobs, count)
        return FeatureEdit(self.units, selection, self.activations, scale, positions=self.settings.positions)

    def direction(
        self, name: DirectionName, alpha: float, jobs: Sequence[int] | None = None, site: Site | None = None
    ) -> DirectionEdit:
        """A direction at one of the settings' sites, by default the first; from states that a pronoun may follow."""
        site = site or next(iter(self.directions))
        if name == "occupations":
            states = self._states(site) if jobs is None else self._states(site).among(list(jobs))
            found = occupation_direction(self.directions[site], states)
        else:
            found = pronoun_direction(self.directions[site])
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


def feature_trial(edits: SiteEdits, rule: RuleName, scale: float, count: int | None = None) -> Trial:
    """Features by a rule."""
    one, other = (edits.features(scale, rule, part, count) for part in halves(edits.settings.seed))
    return Trial(rule, scale, edits.features(scale, rule, count=count), (one, other))


def direction_trial(edits: SiteEdits, name: DirectionName, alpha: float, site: Site | None = None) -> Trial:
    """A direction."""
    one, other = (edits.direction(name, alpha, part, site) for part in halves(edits.settings.seed))
    whole = edits.direction(name, alpha, site=site)
    place = "" if whole.site == edits.units.site else f" at {whole.site.name}"
    return Trial(f"direction {name}{place}", alpha, whole, (one, other))


def random_trial(edits: SiteEdits, whole: FeatureEdit, draw: int, is_matched: bool) -> Trial:
    """A random baseline of features that were selected by all occupations."""
    drawn = whole.random_baseline(derive(edits.settings.seed, draw), is_matched)
    return Trial(f"{'matched' if is_matched else 'random'} {draw + 1}", whole.scale, drawn, None)


def trials(edits: SiteEdits) -> Iterator[Trial]:
    """All edits that the settings ask for: the rule's first, then what it is compared with."""
    settings = edits.settings
    for rule in (settings.rule, *settings.compared):
        for scale in settings.scale:
            yield feature_trial(edits, rule, scale)
    for name, site, alpha in product(settings.directions, edits.directions, settings.alpha):
        yield direction_trial(edits, name, alpha, site)
    for is_matched in (False, True):
        for scale in settings.scale:
            whole = edits.features(scale)
            for draw in range(settings.random_baselines):
                yield random_trial(edits, whole, draw, is_matched)


class Measured:
    """What was measured of the unedited model, and what edits of it are compared with that.

    Args:
        evaluator: measures a model.
        total: how many edits there will be, for the progress bar; without one, there is none.
        before: what was measured of the unedited model already, as ``before`` of another one.
    """

    def __init__(
        self, evaluator: Evaluator, edits: SiteEdits, total: int | None = None,
        before: Mapping[str, ItemMetric] | None = None,
    ) -> None:  # fmt: skip
        self.evaluator, self.edits = evaluator, edits
        self.parts = halves(edits.settings.seed)
        self.prefix = PrefixCache(edits.model, edits.units.site)
        self.names = [*evaluator.suite.measures, *evaluator.texts]
        if HELD_OUT not in self.names:
            raise LceError(f"evaluation.metrics: expected {CHOOSING} among them, by which features are compared")
        self.bar = tqdm(total=1 + (total or 0), desc="Edits", disable=True if total is None else None)
        self.before = dict(before) if before else self._stage("unedited", edits.units.site, self._unedited)

    def row(
        self, trial: Trial, is_costed: bool = True, leave_out: Collection[str] = ()
    ) -> tuple[dict[str, Any], dict[str, ItemMetric]]:
        """What the result says of an edit, and the metrics behind it.

        Args:
            is_costed: measure what the edit does elsewhere, too.
            leave_out: metrics that are not measured.
        """
        title, site = f"{trial.name}, {trial.strength:g}", trial.whole.site
        return self._stage(title, site, lambda: self._row(trial, is_costed, leave_out))

    def _stage(self, title: str, site: Site, measure: Callable[[], Any]) -> Any:
        self.bar.set_postfix_str(title)
        if self.bar.disable:
            log.info("measuring: %s", title)
        with self.prefix.reused() if self.prefix.is_before(site) else nullcontext():
            found = measure()
        self.bar.update()
        return found

    def _unedited(self) -> dict[str, ItemMetric]:
        return {metric.name: metric for metric in self.evaluator.metrics(self.edits.model)}

    def _row(
        self, trial: Trial, is_costed: bool, leave_out: Collection[str]
    ) -> tuple[dict[str, Any], dict[str, ItemMetric]]:
        model, names = self.edits.model, [name for name in self.names if name not in leave_out]
        if trial.by_half is None:
            with trial.whole.applied(model):
                about_jobs = self._only(model, (CHOOSING, HELD_OUT))
        else:
            wanted = [name for name in ABOUT_JOBS if name in names]
            about_jobs = cross_fitted(trial.by_half, self.parts, model, lambda one: self._only(one, wanted))
        others = []
        if is_costed:
            with trial.whole.applied(model):
                others = self._only(model, [name for name in names if name not in ABOUT_JOBS])
        against = {metric.name: differences(metric, self.before[metric.name])[metric.name] for metric in about_jobs}
        metrics = {metric.name: metric for metric in (*about_jobs, *others)}
        row = {
            "name": trial.name,
            "strength": trial.strength,
            "count": trial.count,
            "scores": all_scores(metrics.values()),
            "differences": against,
            "closed": closed(self.before[HELD_OUT], metrics[HELD_OUT]),
        }
        return row, metrics

    def _only(self, model: PreTrainedModel, names: Sequence[str]) -> list[ItemMetric]:
        return self.evaluator.metrics(model, [name for name in self.names if name not in names])


def closed(before: ItemMetric, after: ItemMetric) -> dict[str, Any]:
    """The share of a gap that an edit closes, with its paired bootstrap interval: 1 is all, beyond 1 it is reversed."""
    first, second = (metric.scores()[metric.name] for metric in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = 1 - np.divide([second.value, *second.resampled], [first.value, *first.resampled])
    return {
        "value": defined(float(shares[0])),
        "interval": interval(shares[1:]),
        "n": first.n,
    }


def risen(before: ItemMetric, after: ItemMetric) -> dict[str, Any]:
    """The share by which a score rises, likewise: 0.02 is 2 %, and below 0 it falls."""
    found = closed(before, after)
    ends = found["interval"]
    return found | {"value": -found["value"], "interval": ends and (-ends[1], -ends[0])}
