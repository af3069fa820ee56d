"""The runs of `lce localize heads` and `lce edit heads`: select, edit, measure, and keep."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lce.commands.common import is_made
from lce.data.pictures.attributes import Attribute, load_attribute
from lce.data.pictures.drawn import draw_pictures
from lce.data.pictures.table import TABLE, Pictures, read_pictures
from lce.evaluation.head_audit import HeadAudit
from lce.evaluation.head_report import write_head_report
from lce.evaluation.head_trials import audited
from lce.foundations.files import save_config, write_json
from lce.foundations.overwriting import check_own_folder, check_replaceable, check_selection_file
from lce.foundations.paths import CONFIG, RESULT
from lce.foundations.seeds import derive
from lce.localize.head_settings import DRAWN, HeadSettings, check_heads
from lce.localize.selection import Selection
from lce.models.clip import Clip, load_clip
from lce.storage.hub import identity

SELECTION = "selection.safetensors"


def run_localize_heads(settings: HeadSettings) -> tuple[Path, list[dict[str, Any]]]:
    """Select heads, and write the selection; return its file, and what is known of the heads that are selected.

    Raises:
        LceError: the model, the pictures or the settings do not fit, or too few heads are described by the attribute.
    """
    check_heads(settings)
    path = Path(settings.output or f"{settings.experiment}/selections/{_name(settings)}.safetensors")
    check_selection_file(path, {".yaml": "settings file of localize"})
    selection = _loaded(settings).localizer.selection()
    selection.save(path)
    save_config(path.with_suffix(".yaml"), asdict(settings), "localize")
    return path, described(selection)


def run_edit_heads(settings: HeadSettings) -> Path:
    """Edit heads, measure, and write patches, figures and the page; return the path of the result.

    A result that exists for the same settings, model and pictures is not made again.

    Raises:
        LceError: the model, the pictures or the settings do not fit, too few heads are described by the attribute, or
            something would be written over.
    """
    check_heads(settings)
    digest = f"{derive(str(_identity(settings))):016x}"
    folder = Path(settings.output or f"{settings.experiment}/edits/{_name(settings)}-{digest[:6]}")
    result_file = folder / RESULT
    if is_made(result_file, digest):
        return result_file
    if settings.output:
        check_own_folder(folder, CONFIG, "edit")
    if settings.patch:
        check_replaceable(settings.patch, "patch")
    audit = _loaded(settings)
    selection = audit.localizer.selection()
    # What is refused is refused above, before anything is written.
    found = audited(audit, selection, _others(settings, audit.clip)) if settings.measure else {}
    save_config(folder / CONFIG, asdict(settings), "edit")
    selection.save(folder / SELECTION)
    about = {"model": settings.model, "attribute": audit.attribute.name, "seed": settings.seed}
    if found:
        about["scores"] = {
            name: {"before": score["value"], "after": found["edits"][0]["scores"][name]["value"]}
            for name, score in found["before"]["scores"].items()
        }
    patches = {
        name: str(audit.edit(selection, name).patch(folder / f"{name}.patch.safetensors", about).file)
        for name in settings.edits
    }
    kept = patches[settings.edits[0]]
    if settings.patch:
        kept = str(audit.edit(selection, settings.edits[0]).patch(settings.patch, about).file)
    result = {
        "model": settings.model,
        "attribute": audit.attribute.name,
        "groups": [group.name for group in audit.attribute.groups],
        "pictures": settings.pictures,
        "selection": str(folder / SELECTION),
        "selected": described(selection),
        **found,
        "patch": kept,
        "patches": patches,
        "rerun": {"command": "edit heads", "config": str(folder / CONFIG)},
        "identity": digest,
    }
    if found:
        write_head_report(folder, result, audit)
    write_json(result_file, result)
    return result_file


def described(selection: Selection) -> list[dict[str, Any]]:
    """What is known of the heads that are selected, those of highest score first."""
    return sorted((row for rows in selection.details.values() for row in rows), key=lambda row: -row["score"])


def _loaded(settings: HeadSettings) -> HeadAudit:
    attribute = load_attribute(settings.attribute)
    pictures = _pictures(settings, attribute, settings.matched)
    clip = load_clip(settings.model, settings.device, settings.trust_remote_code)
    return HeadAudit(settings, clip, pictures, attribute)


def _others(settings: HeadSettings, clip: Clip) -> dict[str, HeadAudit]:
    """Audits of the attributes that this one is compared with, by name."""
    found = {}
    for name, matched in settings.compared.items():
        attribute = load_attribute(name)
        asked = replace(settings, attribute=name, matched=matched)
        found[attribute.name] = HeadAudit(asked, clip, _pictures(asked, attribute, matched), attribute)
    return found


def _pictures(settings: HeadSettings, attribute: Attribute, matched: str | None) -> Pictures:
    _provide(settings)
    return read_pictures(settings.pictures, _table(settings), attribute, settings.where, settings.classes, matched)


def _provide(settings: HeadSettings) -> None:
    """Have the drawn pictures made, if they are the ones that are asked for."""
    if settings.pictures == DRAWN:
        draw_pictures(settings.pictures, settings.downloads)


def _table(settings: HeadSettings) -> Path:
    return Path(settings.table or Path(settings.pictures) / TABLE)


def _name(settings: HeadSettings) -> str:
    parts = [Path(settings.model).name, Path(settings.attribute).stem, f"{settings.size}"]
    return "-".join(re.sub(r"[^\w.-]", "", part) for part in parts)


def _identity(settings: HeadSettings) -> dict[str, Any]:
    """What the result depends on."""
    _provide(settings)
    free = {"experiment", "output", "trust_remote_code", "model", "device", "batch_size", "downloads", "patch"}
    known = {key: value for key, value in asdict(settings).items() if key not in free}
    attributes = [repr(load_attribute(name)) for name in (settings.attribute, *settings.compared)]
    texts = [_read(_table(settings)), *([_read(Path(settings.dictionary))] if settings.dictionary else [])]
    return known | {"model": identity(settings.model).fingerprint, "attributes": attributes, "texts": texts}


def _read(path: Path) -> str:
    """A file's content, or nothing where it cannot be read, which whoever reads it in earnest reports."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
