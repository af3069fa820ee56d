"""An edit measured: the target before and after it, beside random baselines and the reference."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lce.config import Settings
from lce.edit.protocol import Edit
from lce.evaluation.evaluator import Evaluator
from lce.foundations.seeds import derive
from lce.metrics.suite import Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

LEFT_OUT_OF_FURTHER_BASELINES = ("crows_pairs_original", "pseudo_perplexity")
"""Metrics that take longer than all others together: of the random baselines, only the first is measured by them."""


class EditMeasurement:
    """Measures edits of one target, which is left as it was.

    Args:
        evaluator: measures a model.
        model, reference: the target and the reference; None where the edit has none.
        settings: how many random baselines each edit is compared with, and their seed.
        edits: how many edits will be measured, for the progress bar.
        log_scores: called with α and the scores of the edited target.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        model: PreTrainedModel,
        reference: PreTrainedModel | None,
        settings: Settings,
        edits: int,
        log_scores: Callable[[float, Scores], None],
    ) -> None:
        self.evaluator, self.model, self.log_scores = evaluator, model, log_scores
        self.baselines, self.seed = settings.random_baselines, settings.seed
        self.bar = tqdm(
            total=1 + (reference is not None) + edits * (1 + self.baselines), desc="Evaluations", disable=None
        )
        self.reference: Scores = {}
        if reference is not None:
            self.reference = self._stage("reference", partial(evaluator.unedited, reference))
        self.before = self._stage("target", partial(evaluator.unedited, model))

    def rows(self, edit: Edit | None, alpha: float) -> dict[str, dict[str, Any]]:
        """Per score: before, after the ``edit`` (None where α is 0), by its random baselines, and the reference's."""
        if edit is None:
            self.log_scores(alpha, self.before)
            return {name: self._row(name, self.before, [self.before]) for name in self.before}
        after, baselines = self._stage(f"α = {alpha:g}", partial(self._tried, edit)), []
        self.log_scores(alpha, after)
        for number in range(self.baselines):
            baseline = edit.random_baseline(derive(self.seed, number))
            left_out = LEFT_OUT_OF_FURTHER_BASELINES if number else ()
            title = f"α = {alpha:g}, random baseline {number + 1} of {self.baselines}"
            baselines.append(self._stage(title, partial(self._tried, baseline, left_out)))
        return {name: self._row(name, after, baselines) for name in self.before}

    def _stage(self, title: str, measure: Callable[[], Scores]) -> Scores:
        self.bar.set_postfix_str(title)
        if self.bar.disable:
            log.info("measuring: %s", title)
        scores = measure()
        self.bar.update()
        return scores

    def _tried(self, edit: Edit, leave_out: tuple[str, ...] = ()) -> Scores:
        with edit.applied(self.model):
            return self.evaluator.scores(self.model, leave_out)

    def _row(self, name: str, after: Scores, baselines: list[Scores]) -> dict[str, Any]:
        values = [scores[name]["value"] for scores in baselines if name in scores]
        before = self.before[name]
        row = {
            "before": before["value"],
            "before_interval": before["interval"],
            "after": after[name]["value"],
            "after_interval": after[name]["interval"],
            "uninformed": mean(values) if values else None,
            "uninformed_std": stdev(values) if len(values) > 1 else None,
            "uninformed_draws": values,
            "reference": self.reference[name]["value"] if self.reference else None,
            "n": before["n"],
        }
        if "p_value" in before:
            row |= {"p_value_before": before["p_value"], "p_value_after": after[name]["p_value"]}
        return row
