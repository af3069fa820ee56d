"""What an audit of attention heads is made of, the CLIP, the pictures and the attribute, and what identifies them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lce.data.pictures.attributes import load_attribute
from lce.data.pictures.drawn import draw_pictures
from lce.data.pictures.table import TABLE, read_pictures
from lce.evaluation.head_audit import HeadAudit
from lce.foundations.seeds import derive
from lce.localize.head_settings import DRAWN, HeadSettings
from lce.models.clip import Clip, load_clip


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


def content_of_inputs(settings: HeadSettings) -> dict[str, Any]:
    """What is in the files that the ``settings`` name, beside the model; of pictures, their names and sizes."""
    _provide(settings)
    attributes = [repr(load_attribute(name)) for name in (settings.attribute, *settings.compared)]
    texts = [_read(_table(settings)), *([_read(Path(settings.dictionary))] if settings.dictionary else [])]
    folder = Path(settings.pictures)
    sizes = [(str(file.relative_to(folder)), file.stat().st_size) for file in _files(folder)]
    return {"attributes": attributes, "texts": texts, "pictures": derive(str(sizes))}


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _provide(settings: HeadSettings) -> None:
    """Have the drawn pictures made, if they are the ones that are asked for."""
    if settings.pictures == DRAWN:
        draw_pictures(settings.pictures, settings.downloads)


def _table(settings: HeadSettings) -> Path:
    return Path(settings.table or Path(settings.pictures) / TABLE)


def _read(path: Path) -> str:
    """A file's content, or nothing where it cannot be read, which whoever reads it in earnest reports."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
