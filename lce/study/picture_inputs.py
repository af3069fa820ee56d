"""What results about models that read pictures depend on beside the model: of heads, attribute by attribute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lce.foundations.seeds import derive
from lce.localize.direction_settings import DirectionSettings
from lce.localize.head_settings import HeadSettings
from lce.study.settings import StudySettings

FILES = ("pictures", "table", "dictionary")
MATTER = (*FILES, "where", "classes", "templates", "views", "rank", "texts", "matched", "leaning")
"""Settings of an audit on which every result depends."""


def audit_settings(study: StudySettings, attribute: str, seed: int = 0) -> HeadSettings:
    """The settings of the audit by one attribute."""
    return study.heads.audit(attribute, seed=seed, model=study.heads.model or study.base, **_shared(study))


def direction_settings(study: StudySettings, seed: int = 0) -> DirectionSettings:
    """Those of the audit of directions; the states of texts are kept in the study's folder."""
    model = study.directions.model or study.base
    return study.directions.audit(model, seed=seed, experiment=study.experiment, **_shared(study))


def _shared(study: StudySettings) -> dict[str, Any]:
    return {"downloads": study.data.downloads, "trust_remote_code": study.trust_remote_code}


def record_of_pictures(study: StudySettings) -> dict[str, Any]:
    """What a study's folder notes of its attributes and of the files that their settings name; without any, nothing."""
    digests = {attribute: _digest(study, attribute) for attribute in study.heads.attributes}
    found: dict[str, Any] = {"heads": _files(study), "inputs": digests} if digests else {}
    if study.directions.is_asked:
        found["directions"] = {"about": _named_by_directions(study), "inputs": _direction_digest(study)}
    return found


def head_context(study: StudySettings, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """By attribute, what its results depend on; as it is ``recorded``, so that a report needs no pictures, else as it
    is now.
    """
    known = recorded.get("inputs", {}) if recorded.get("heads") == _files(study) else {}
    found = {}
    for attribute in study.heads.attributes:
        about = asdict(study.heads.audit(attribute))
        digest = known.get(attribute) or _digest(study, attribute)
        found[attribute] = {"inputs": digest, **{name: about[name] for name in MATTER}}
    return found


def direction_context(study: StudySettings, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What results about directions depend on, likewise."""
    about = _named_by_directions(study)
    known = recorded.get("directions", {"about": {}})
    if known["about"] | {"computes": about["computes"]} == about:  # also on another machine than the one that swept
        return {**known["about"], "inputs": known["inputs"]}
    return {**about, "inputs": _direction_digest(study)}


def _named_by_directions(study: StudySettings) -> dict[str, Any]:
    """The settings of directions that matter to every result."""
    from lce.models.image_text import chosen_device

    free = {"projector", "model", "edits", "alpha", "random_directions", "batch_size", "device"}
    computes = chosen_device(study.directions.device).partition(":")[0]
    return {name: value for name, value in asdict(study.directions).items() if name not in free} | {
        "computes": computes
    }


def _direction_digest(study: StudySettings) -> str:
    from lce.evaluation.audit_inputs import content_of_direction_inputs

    return f"{derive(str(content_of_direction_inputs(direction_settings(study)))):016x}"


def _files(study: StudySettings) -> dict[str, Any]:
    return {name: getattr(study.heads, name) for name in FILES}


def _digest(study: StudySettings, attribute: str) -> str:
    from lce.evaluation.audit_inputs import content_of_inputs

    return f"{derive(str(content_of_inputs(audit_settings(study, attribute)))):016x}"
