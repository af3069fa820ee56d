"""Attention heads in a study: what it can be told about them, with defaults; as light to import as `lce.config`."""

from dataclasses import dataclass, field, fields
from typing import Any

from lce import checks
from lce.foundations.errors import LceError
from lce.localize.head_settings import AuditSettings, HeadSettings, check_heads


@dataclass
class HeadStudy(AuditSettings):
    """Edits of the attention heads of a CLIP: every attribute with every size and edit.

    Without attributes, as by default, there are none.
    """

    attributes: dict[str, str | None] = field(default_factory=dict)
    """Attributes (gender, skin-tone, age, or a YAML file, as in `lce edit heads`) → the column of the table that
    pictures share which are alike but for the group, or null."""
    model: str | None = None
    """CLIP; by default the study's base."""
    leaning: dict[str, list[str]] = field(default_factory=dict)
    """Attribute → classes that are expected to lean towards its first group; by default those that do so for the other
    half of the people."""
    sizes: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    """Numbers of heads that are selected."""

    @property
    def is_asked(self) -> bool:
        """Whether there is any edit."""
        return bool(self.attributes)

    def audit(self, attribute: str, **others: Any) -> HeadSettings:
        """The settings with which `lce edit heads` does the same for one attribute; ``others`` are further ones."""
        known: dict[str, Any] = {setting.name: getattr(self, setting.name) for setting in fields(AuditSettings)}
        known |= {"matched": self.attributes[attribute], "leaning": self.leaning.get(attribute)}
        return HeadSettings(**known, attribute=attribute, **others)


def check_head_study(settings: HeadStudy) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the model and the pictures."""
    if not settings.is_asked:
        return
    sizes = settings.sizes
    checks.expect(bool(sizes) and len(set(sizes)) == len(sizes), "heads.sizes", "each once, at least one", sizes)
    for size in sizes:
        checks.check_positive(size, "heads.sizes", "positive numbers of heads")
    for name in settings.leaning:
        wanted = f"classes for some of the attributes, {', '.join(settings.attributes)}"
        checks.expect(name in settings.attributes, "heads.leaning", wanted, repr(name))
    for attribute in settings.attributes:
        try:
            check_heads(settings.audit(attribute))
        except LceError as error:
            raise LceError(f"heads.{error}") from error
