"""Audits of tiny CLIPs on pictures drawn here, with settings that make them quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from clips import TEMPLATES
from painted import SHAPES

from lce.cli import main
from lce.data.pictures.attributes import load_attribute
from lce.data.pictures.table import TABLE, read_pictures
from lce.evaluation.head_audit import HeadAudit
from lce.localize.head_settings import HeadSettings
from lce.localize.selection import Selection
from lce.models.clip import Clip

QUICK: dict[str, Any] = {
    "templates": TEMPLATES, "classes": list(SHAPES), "size": 1, "rank": 2, "texts": 6, "random_sets": 5,
    "retrieved": 5, "device": "cpu",
}  # fmt: skip


def audit(clip: Clip, pictures: Path, **options: Any) -> HeadAudit:
    """The audit of a ``clip`` on the ``pictures`` of a folder with a table."""
    settings = HeadSettings(model=clip.name, pictures=str(pictures), **(QUICK | options))
    attribute = load_attribute(settings.attribute)
    table = settings.table or pictures / TABLE
    asked = settings.where, settings.classes, settings.matched
    return HeadAudit(settings, clip, read_pictures(pictures, table, attribute, *asked), attribute)


def selected(made: HeadAudit, *heads: tuple[int, int]) -> Selection:
    """The selection of these heads, (layer, head)."""
    return made.localizer.selected([one for one in made.localizer.reports if (one.layer, one.head) in heads])


def configured(folder: Path, model: str, **options: Any) -> Path:
    """Settings for the model and the pictures of a ``folder``, in its config.yaml."""
    content = (
        QUICK | {"model": model, "pictures": str(folder / "pictures"), "experiment": str(folder / "run")} | options
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def heads(folder: Path, command: str, *options: object) -> int:
    """The status of the command with the settings of the ``folder``."""
    return main([command, "heads", "--config", str(folder / "config.yaml"), *map(str, options)])
