"""Directions in a study: what it can be told about them, with defaults; as light to import as `lce.config`."""

from dataclasses import dataclass, field, fields
from typing import Any

from lce import checks
from lce.foundations.errors import LceError
from lce.localize.direction_settings import DirectionEditName, DirectionSettings, LeaningSettings, check_directions


@dataclass
class DirectionStudy(LeaningSettings):
    """Edits of a direction in a vision-language model: every edit with every strength.

    Without edits, as by default, there are none.
    """

    model: str | None = None
    """Vision-language model; by default the study's base."""
    edits: list[DirectionEditName] = field(default_factory=list)
    """zero and mean, as in `lce edit directions`."""
    alpha: list[float] = field(default_factory=lambda: [1.0])
    """How much of the direction is taken out."""

    @property
    def is_asked(self) -> bool:
        """Whether there is any edit."""
        return bool(self.edits)

    def audit(self, model: str, **others: Any) -> DirectionSettings:
        """The settings with which `lce edit directions` does the same; ``others`` are further ones."""
        known: dict[str, Any] = {setting.name: getattr(self, setting.name) for setting in fields(LeaningSettings)}
        return DirectionSettings(**known, model=model, edits=self.edits, **others)


def check_direction_study(settings: DirectionStudy) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the model and the pictures."""
    if not settings.is_asked:
        return
    alpha = settings.alpha
    checks.expect(bool(alpha) and len(set(alpha)) == len(alpha), "directions.alpha", "each once, at least one", alpha)
    for strength in alpha:
        try:
            check_directions(settings.audit("", alpha=strength))
        except LceError as error:
            raise LceError(f"directions.{error}") from error
