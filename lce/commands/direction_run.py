"""The runs of `lce localize directions` and `lce edit directions`: select, edit, measure, and keep."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lce.commands.common import destination_of_edit, named_after
from lce.evaluation.audit_inputs import content_of_direction_inputs, open_direction_audit
from lce.evaluation.direction_audit import DirectionAudit
from lce.evaluation.direction_report import write_direction_report
from lce.evaluation.direction_trials import audited
from lce.foundations.files import save_config, write_json
from lce.foundations.overwriting import check_selection_file
from lce.foundations.paths import CONFIG
from lce.localize.direction_settings import DirectionSettings, check_directions
from lce.localize.selection import Selection
from lce.models.assembled import provide_mini
from lce.models.image_text import chosen_device
from lce.storage.hub import identity

SELECTION = "selection.safetensors"


def run_localize_directions(settings: DirectionSettings) -> tuple[Path, list[dict[str, Any]], int]:
    """Select a layer's direction, and write the selection; return its file, what is known of all layers, and the one
    that is selected, counted from 0.

    Raises:
        LceError: the model, the pictures or the settings do not fit.
    """
    check_directions(settings)
    path = Path(settings.output or f"{settings.experiment}/selections/{_name(settings)}.safetensors")
    check_selection_file(path, {".yaml": "settings file of localize"})
    audit = open_direction_audit(settings)
    _selection(audit).save(path)
    save_config(path.with_suffix(".yaml"), asdict(settings), "localize")
    return path, audit.by_layer, audit.layer


def run_edit_directions(settings: DirectionSettings) -> Path:
    """Edit a direction, measure, and write patches, figures and the page; return the path of the result.

    A result that exists for the same settings, model and pictures is not made again.

    Raises:
        LceError: the model, the pictures or the settings do not fit, or something would be written over.
    """
    check_directions(settings)
    provide_mini(settings.model, settings.downloads, settings.projector)
    to = destination_of_edit(settings.experiment, settings.output, _name(settings), settings.patch, _identity(settings))
    if to.is_made:
        return to.result
    folder = to.folder
    audit = open_direction_audit(settings)
    selection = _selection(audit)
    edits = {name: audit.edit(audit.layer, name) for name in settings.edits}
    measured = audited(audit) if settings.measure else None
    # What is refused is refused above; until here, only the states of texts are written, which other runs share.
    save_config(folder / CONFIG, asdict(settings), "edit")
    selection.save(folder / SELECTION)
    about = {"model": settings.model, "attribute": audit.attribute.name, "seed": settings.seed}
    rows = {row["edit"]: row for row in measured.found["edits"]} if measured else {}
    said = {name: about | _scores(measured.found["before"], rows[name]) if measured else about for name in edits}
    patches = {
        name: str(edit.patch(folder / f"{name}.patch.safetensors", said[name]).file) for name, edit in edits.items()
    }
    kept = settings.edits[0]
    patch = str(edits[kept].patch(settings.patch, said[kept]).file) if settings.patch else patches[kept]
    result = {
        "model": str(audit.model.folder),
        "name": settings.model,
        "attribute": audit.attribute.name,
        "groups": [group.name for group in audit.attribute.groups],
        "pictures": settings.pictures,
        "counts": {name: len(found) for name, found in _pictures(audit).items()},
        "selection": str(folder / SELECTION),
        "selected": [row for rows in selection.details.values() for row in rows],
        **(measured.found if measured else {"checks": {}}),
        "patch": patch,
        "patches": patches,
        "rerun": {"command": "edit directions", "config": str(folder / CONFIG)},
        "identity": to.digest,
    }
    if measured:
        write_direction_report(folder, result, audit, measured.before)
    write_json(to.result, result)
    return to.result


def _selection(audit: DirectionAudit) -> Selection:
    about = {**audit.by_layer[audit.layer], "source": audit.settings.source}
    return audit.units.selection([audit.layer], {audit.layer: about})


def _pictures(audit: DirectionAudit) -> dict[str, Any]:
    return {
        "shown": audit.shown.pictures,
        "chosen_by": audit.chosen_by.pictures,
        "without_people": audit.without_people,
    }


def _scores(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What a patch says of the scores."""
    names = ("leaning", "gap", "separation", "odds", "odds_gap", "class_named", "perplexity")
    return {"scores": {name: {"before": before[name]["value"], "after": after[name]["value"]} for name in names}}


def _name(settings: DirectionSettings) -> str:
    return named_after(Path(settings.model).name, Path(settings.attribute).stem, settings.source)


def _identity(settings: DirectionSettings) -> dict[str, Any]:
    """What the result depends on."""
    free = {"experiment", "output", "trust_remote_code", "model", "projector", "device", "batch_size", "downloads"}
    known = {key: value for key, value in asdict(settings).items() if key not in free}
    computes = chosen_device(settings.device).partition(":")[0]  # on a GPU, in the precision of the checkpoint
    model = identity(settings.model).fingerprint
    return known | {"model": model, "computes": computes, **content_of_direction_inputs(settings)}
