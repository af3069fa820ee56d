"""The runs of `lce localize heads` and `lce edit heads`: select, edit, measure, and keep."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lce.commands.common import destination_of_edit, named_after
from lce.evaluation.audit_inputs import content_of_inputs, open_audit
from lce.evaluation.head_audit import HeadAudit
from lce.evaluation.head_report import write_head_report
from lce.evaluation.head_trials import audited
from lce.foundations.files import save_config, write_json
from lce.foundations.overwriting import check_selection_file
from lce.foundations.paths import CONFIG
from lce.localize.head_settings import HeadSettings, check_heads
from lce.localize.selection import Selection
from lce.models.clip import Clip
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
    selection = open_audit(settings).localizer.selection()
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
    to = destination_of_edit(settings.experiment, settings.output, _name(settings), settings.patch, _identity(settings))
    if to.is_made:
        return to.result
    folder = to.folder
    audit = open_audit(settings)
    others = _others(settings, audit.clip) if settings.measure else {}
    selection = audit.localizer.selection()
    edits = {name: audit.edit(selection, name) for name in settings.edits}
    for edit in edits.values():
        edit.check()
    # What is refused is refused above, before anything is written.
    found = audited(audit, selection, others) if settings.measure else {"checks": {}}
    save_config(folder / CONFIG, asdict(settings), "edit")
    selection.save(folder / SELECTION)
    about = {"model": settings.model, "attribute": audit.attribute.name, "seed": settings.seed}
    if settings.measure:
        about["scores"] = {
            name: {"before": score["value"], "after": found["edits"][0]["scores"][name]["value"]}
            for name, score in found["before"]["scores"].items()
        }
    patches = {name: str(edit.patch(folder / f"{name}.patch.safetensors", about).file) for name, edit in edits.items()}
    kept = patches[settings.edits[0]]
    if settings.patch:
        kept = str(edits[settings.edits[0]].patch(settings.patch, about).file)
    result = {
        "model": str(audit.clip.folder),
        "name": settings.model,
        "attribute": audit.attribute.name,
        "groups": [group.name for group in audit.attribute.groups],
        "pictures": settings.pictures,
        "selection": str(folder / SELECTION),
        "selected": described(selection),
        **found,
        "patch": kept,
        "patches": patches,
        "rerun": {"command": "edit heads", "config": str(folder / CONFIG)},
        "identity": to.digest,
    }
    if settings.measure:
        write_head_report(folder, result, audit)
    write_json(to.result, result)
    return to.result


def described(selection: Selection) -> list[dict[str, Any]]:
    """What is known of the heads that are selected, those of highest score first."""
    return sorted((row for rows in selection.details.values() for row in rows), key=lambda row: -row["score"])


def _others(settings: HeadSettings, clip: Clip) -> dict[str, HeadAudit]:
    """Audits of the attributes that this one is compared with, by name."""
    found = {}
    for name, matched in settings.compared.items():
        audit = open_audit(replace(settings, attribute=name, matched=matched), clip)
        found[audit.attribute.name] = audit
    return found


def _name(settings: HeadSettings) -> str:
    return named_after(Path(settings.model).name, Path(settings.attribute).stem, f"{settings.size}")


def _identity(settings: HeadSettings) -> dict[str, Any]:
    """What the result depends on."""
    free = {"experiment", "output", "trust_remote_code", "model", "device", "batch_size", "downloads"}
    known = {key: value for key, value in asdict(settings).items() if key not in free}
    return known | {"model": identity(settings.model).fingerprint, **content_of_inputs(settings)}
