"""What the results of a study depend on beside their cells: the models, the text, the pictures, and how is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lce.config import Kind
from lce.data import prepare
from lce.foundations.files import read_json, write_json
from lce.foundations.overwriting import check_replaceable
from lce.foundations.paths import BASE, shipped
from lce.foundations.seeds import derive
from lce.models.kinds import kind_named
from lce.storage.hub import identity
from lce.study.feature_study import FeatureStudy
from lce.study.picture_inputs import direction_context, head_context, record_of_pictures
from lce.study.settings import StudySettings
from lce.training.trainer_options import identity_of, numerics


def context_of(study: StudySettings, trainer_options: dict[str, Any]) -> dict[str, Any]:
    """What the results of a study depend on: those of training, all that reads text, and those of each unit."""
    recorded = _recorded_base(study)
    base = {"base": study.base, "base_fingerprint": base_fingerprint(study)}
    found: dict[str, Any] = {"base": base, "shared": base}
    if study.heads.is_asked:
        found["heads"] = head_context(study, recorded)
        if study.heads.model:
            model = {"model": model_fingerprint(study, "heads")}
            found["heads"] = {name: about | model for name, about in found["heads"].items()}
    if study.directions.is_asked:
        found["directions"] = direction_context(study, recorded) | {"model": model_fingerprint(study, "directions")}
    if study.reads_text:
        evaluation = asdict(study.evaluation)
        files = [*study.evaluation.weat, *filter(None, [study.evaluation.text])]
        found["shared"] = {
            **base,
            "data": prepare.identity_of(study.data),
            "train": identity_of(study.train, base_kind(study)),
            "trainer": numerics(trainer_options),
        }
        found["evaluation"] = evaluation | {name: digest for name in files if (digest := digest_of(shipped(name)))}
        found["features"] = _feature_context(study, study.features, recorded) if study.features.is_asked else {}
    return found


def _feature_context(study: StudySettings, features: FeatureStudy, recorded: Mapping[str, Any]) -> dict[str, Any]:
    known = recorded.get("autoencoder") if recorded.get("sae") == features.sae else None
    model = {"model": model_fingerprint(study, "features")} if features.model else {}
    read = {"site": features.site, "contexts": features.contexts, "tokens": features.tokens}
    return {"autoencoder": known or autoencoder_fingerprint(features.sae), **read, **model}


def autoencoder_fingerprint(name: str) -> str:
    """What identifies an autoencoder: its tensors, and all in its files that says how it is used."""
    from lce.models.autoencoder_files import load_autoencoder

    found = load_autoencoder(name)
    site = (found.metadata or {}).get("lce_site") or found.site
    return f"{derive(found.fingerprint, *map(str, (found.k, found.subtracts_bias, found.normalisation, site))):016x}"


def record_base(study: StudySettings) -> None:
    """Note in the study's folder what its models, its autoencoder and its pictures are now: all goes by that."""
    path, found = Path(study.experiment) / BASE, identity(study.base)
    check_replaceable(path, "record of a base model")
    kind = kind_named(study.base, study.trust_remote_code) if study.is_base_read else "pictures"
    about: dict[str, Any] = {"base": study.base, "fingerprint": found.fingerprint, "commit": found.commit, "kind": kind}
    if study.features.is_asked:
        sae = study.features.sae
        about |= {"sae": sae, "autoencoder": autoencoder_fingerprint(sae)}
    if study.own_models:
        about["models"] = {
            unit: {"model": name, "fingerprint": identity(name).fingerprint} for unit, name in study.own_models.items()
        }
    about |= record_of_pictures(study)
    write_json(path, about)


def base_fingerprint(study: StudySettings) -> str:
    """What identifies the base model: as the study's folder has it, so that a report needs no model; else as it is."""
    recorded = _recorded_base(study)
    return str(recorded["fingerprint"]) if "fingerprint" in recorded else identity(study.base).fingerprint


def model_fingerprint(study: StudySettings, unit: str) -> str:
    """The same of the model whose units of a kind are edited."""
    if unit not in study.own_models:
        return base_fingerprint(study)
    name = study.own_models[unit]
    known = _recorded_base(study).get("models", {}).get(unit, {})
    return str(known["fingerprint"]) if known.get("model") == name else identity(name).fingerprint


def base_kind(study: StudySettings) -> Kind:
    """The kind of the base model, likewise; records that do not say it are of masked models, and of a base that no text
    is read with, nothing depends on it.
    """
    recorded = _recorded_base(study)
    if not recorded and study.is_base_read:
        return kind_named(study.base, study.trust_remote_code)
    return "causal" if recorded.get("kind") == "causal" else "masked"


def _recorded_base(study: StudySettings) -> dict[str, Any]:
    path = Path(study.experiment) / BASE
    recorded = read_json(path) if path.exists() else {}
    return recorded if isinstance(recorded, dict) and recorded.get("base") == study.base else {}


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file, or of the tables in a folder; None if there is neither."""
    files = sorted(path.glob("*.tsv")) if path.is_dir() else [path] if path.is_file() else []
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None
