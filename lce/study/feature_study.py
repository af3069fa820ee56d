"""Features in a study: what it can be told about them, with defaults; as light to import as `lce.config`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lce import checks
from lce.config import EvaluationSettings
from lce.foundations.errors import LceError
from lce.localize.feature_settings import DirectionName, FeatureSettings, RuleName, Tokens, check_features

Control = Literal["none", "uninformed", "matched"]
NEEDED = ("occupation_pronouns", "perplexity")
"""Metrics that edits of features are compared by."""


@dataclass
class FeatureStudy:
    """Edits of an autoencoder's features, and of directions: every combination of the lists that makes sense.

    Without rules and directions, as by default, there are none.
    """

    model: str | None = None
    """Language model whose features are edited; by default the study's base."""
    sae: str = "checkpoints/smollm2-sae"
    """Autoencoder of that model, in SAELens's format: a folder, or OWNER/REPOSITORY/FOLDER on the hub."""
    site: str | None = None
    """Where its states come from, if not where it says: layers.N, a module's path, or a hook of TransformerLens."""
    contexts: list[str] | None = None
    """Texts in which the model reads about the occupations, with {job} in them, as in `lce edit features`."""
    tokens: Tokens = "all"
    """Tokens of a context whose activations count: all but the first, on average, or the last one."""
    rules: list[RuleName] = field(default_factory=list)
    """How features are selected, as in `lce edit features`: counts, difference, attribution."""
    count: list[int] = field(default_factory=lambda: [20])
    """Numbers of features that the rules difference and attribution select; how many counts selects follows from its
    thresholds."""
    scale: list[float] = field(default_factory=lambda: [0.3, 0.0])
    """What the selected features are multiplied by: 0 takes them out, 1 changes nothing."""
    directions: list[DirectionName] = field(default_factory=list)
    """Directions that are taken out instead: occupations, from women's to men's; pronouns, from she to he."""
    alpha: list[float] = field(default_factory=lambda: [1.0])
    """Strengths α with which the directions are taken out."""
    controls: list[Control] = field(default_factory=lambda: ["none", "uninformed", "matched"])
    """none: the edit itself, and the directions; uninformed: as many features at random; matched: as many at random of
    nearly the same mean activations."""
    draws: int = 1
    """Random selections of each control."""

    @property
    def is_asked(self) -> bool:
        """Whether there is any edit."""
        return bool(self.rules or self.directions)


def check_feature_study(settings: FeatureStudy, evaluation: EvaluationSettings) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the model and its autoencoder."""
    if not settings.is_asked:
        return
    try:
        check_features(FeatureSettings(scale=settings.scale, alpha=settings.alpha, compare=[]))
    except LceError as error:
        raise LceError(f"features.{error}") from error
    for name in ("rules", "count", "directions", "controls"):
        _expect_each_once(name, getattr(settings, name))
    if set(settings.rules) - {"counts"}:
        _expect(bool(settings.count), "count", "at least one number of features, for the rules beside counts", [])
    for count in settings.count:
        checks.check_positive(count, "features.count", "positive numbers of features")
    if settings.directions:
        _expect(bool(settings.alpha), "alpha", "at least one strength of the directions", settings.alpha)
    _expect(bool(settings.controls), "controls", "at least one of none, uninformed and matched", settings.controls)
    checks.check_positive(settings.draws, "features.draws", "a positive number of random selections")
    for text in settings.contexts or []:
        _expect("{job}" in text, "contexts", "texts with {job} in them", repr(text))
    missing = [name for name in NEEDED if name not in evaluation.metrics]
    wanted = f"{' and '.join(NEEDED)} among them, by which edits of features are compared"
    checks.expect(not missing, "evaluation.metrics", wanted, evaluation.metrics)
    is_gender = evaluation.bias_type in ("gender", "all")
    checks.expect(is_gender, "evaluation.bias_type", "gender or all in a study of features", evaluation.bias_type)


def _expect(is_right: bool, name: str, wanted: str, got: Any) -> None:
    checks.expect(is_right, f"features.{name}", wanted, got)


def _expect_each_once(name: str, values: Sequence[Any]) -> None:
    _expect(len(set(values)) == len(values), name, "each value once", list(values))
