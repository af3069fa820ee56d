"""What results about attention heads depend on beside the CLIP, attribute by attribute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lce.evaluation.audit_inputs import content_of_inputs
from lce.foundations.seeds import derive
from lce.localize.head_settings import HeadSettings
from lce.study.settings import StudySettings

FILES = ("pictures", "table", "dictionary")
MATTER = (*FILES, "where", "classes", "templates", "views", "rank", "texts", "matched", "leaning")
"""Settings of an audit on which every result depends."""


def audit_settings(study: StudySettings, attribute: str, seed: int = 0) -> HeadSettings:
    """The settings of the audit by one attribute."""
    known = {"model": study.base, "downloads": study.data.downloads, "trust_remote_code": study.trust_remote_code}
    return study.heads.audit(attribute, seed=seed, **known)


def record_of_heads(study: StudySettings) -> dict[str, Any]:
    """What a study's folder notes of its attributes and of the files that their settings name; without any, nothing."""
    digests = {attribute: _digest(study, attribute) for attribute in study.heads.attributes}
    return {"heads": _files(study), "inputs": digests} if digests else {}


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


def _files(study: StudySettings) -> dict[str, Any]:
    return {name: getattr(study.heads, name) for name in FILES}


def _digest(study: StudySettings, attribute: str) -> str:
    return f"{derive(str(content_of_inputs(audit_settings(study, attribute)))):016x}"
