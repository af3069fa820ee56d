"""What audits of pictures are made of, the model, the pictures and the attribute, and what identifies them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lce.data.pictures.attributes import load_attribute
from lce.data.pictures.drawn import draw_pictures
from lce.data.pictures.table import TABLE, read_pictures
from lce.evaluation.direction_audit import DirectionAudit
from lce.evaluation.head_audit import HeadAudit
from lce.foundations.seeds import derive
from lce.localize.direction_settings import DirectionSettings
from lce.localize.head_settings import DRAWN, HeadSettings
from lce.localize.lals import load_sentences
from lce.models.assembled import provide_mini
from lce.models.clip import Clip, load_clip
from lce.models.image_text import load_image_text


def open_audit(settings: HeadSettings, clip: Clip | None = None) -> HeadAudit:
    """The audit that the ``settings`` ask for, of a ``clip`` that is loaded already, or else of the one they name.

    Raises:
        LceError: the model, the pictures or the settings do not fit.
    """
    attribute = load_attribute(settings.attribute)
    _provide(settings)
    pictures = read_pictures(
        settings.pictures, _table(settings), attribute, settings.where, settings.classes, settings.matched
    )
    clip = clip or load_clip(settings.model, settings.device, settings.trust_remote_code)
    return HeadAudit(settings, clip, pictures, attribute)


def open_direction_audit(settings: DirectionSettings) -> DirectionAudit:
    """The same of a vision-language model."""
    attribute = load_attribute(settings.attribute)
    _provide(settings)
    provide_mini(settings.model, settings.downloads, settings.projector)
    model = load_image_text(settings.model, settings.device, settings.trust_remote_code)
    return DirectionAudit(settings, model, attribute, _table(settings))


def content_of_inputs(settings: HeadSettings) -> dict[str, Any]:
    """What is in the files that the ``settings`` name, beside the model; of pictures, their names and sizes."""
    return _content(settings, [settings.attribute, *settings.compared], filter(None, [settings.dictionary]))


def content_of_direction_inputs(settings: DirectionSettings) -> dict[str, Any]:
    """The same of what a vision-language model is shown."""
    return {**_content(settings, [settings.attribute], []), "sentences": repr(load_sentences(settings.sentences))}


def _content(settings: HeadSettings | DirectionSettings, attributes: list[str], files: Iterable[str]) -> dict[str, Any]:
    _provide(settings)
    folder = Path(settings.pictures)
    sizes = [(str(file.relative_to(folder)), file.stat().st_size) for file in _files(folder)]
    return {
        "attributes": [repr(load_attribute(name)) for name in attributes],
        "texts": [_read(_table(settings)), *(_read(Path(name)) for name in files)],
        "pictures": derive(str(sizes)),
    }


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _provide(settings: HeadSettings | DirectionSettings) -> None:
    """Have the drawn pictures made, if they are the ones that are asked for."""
    if settings.pictures == DRAWN:
        draw_pictures(settings.pictures, settings.downloads)


def _table(settings: HeadSettings | DirectionSettings) -> Path:
    return Path(settings.table or Path(settings.pictures) / TABLE)


def _read(path: Path) -> str:
    """A file's content, or nothing where it cannot be read, which whoever reads it in earnest reports."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
