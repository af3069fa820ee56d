"""JSON and YAML files, written completely or not at all, and the settings that all results in a folder share."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lce.foundations.atomic_files import replaced_file
from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_replaceable, is_temporary, settings_mark
from lce.foundations.paths import CONFIG, DAMAGED, MADE_WITH


def write_json(path: str | Path, content: Any) -> None:
    with replaced_file(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LceError(f"{path}: cannot be read as JSON ({error})") from error


def save_config(path: str | Path, content: Mapping[str, Any], command: str) -> None:
    """Write the resolved settings of a ``command`` as YAML, in the form that ``--config`` takes."""
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    with replaced_file(path) as temporary:
        temporary.write_text(f"{settings_mark(command)}\n{text}", encoding="utf-8")


def made_with(folder: str | Path) -> dict[str, Any]:
    """What `claim` recorded in ``folder``; empty if nothing. LceError if it cannot be read."""
    path = Path(folder) / MADE_WITH
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LceError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise LceError(f"{path}: does not say what the results in this folder were made with; it was altered")
    return content


def claim(
    folder: str | Path,
    settings: dict[str, Any],
    results: Iterable[str],
    command: str,
    recorded_later: Iterable[str] = (),
) -> None:
    """Record in ``folder`` the ``settings`` that all results in it share.

    Args:
        results: glob patterns; while nothing in the folder matches one, it can be claimed for other settings.
        command: the one that makes the results.
        recorded_later: keys of ``settings`` that older versions of lce did not record, so they may be missing.

    Raises:
        LceError: the folder holds results of other settings, or files under lce's names that lce did not write.
    """
    recorded = made_with(folder)
    if recorded == settings:
        return
    if not recorded:
        check_replaceable(Path(folder) / CONFIG, f"settings file of {command}")
    known = {key: settings[key] for key in recorded_later} | recorded
    found = (path for pattern in results for path in Path(folder).glob(pattern))
    if known != settings and any(not is_temporary(path) and path.suffix != DAMAGED for path in found):
        differing = (
            ["no settings are recorded"]
            if not recorded
            else [
                f"{key} was {known.get(key)!r}, now {settings.get(key)!r}"
                for key in sorted({*known, *settings})
                if known.get(key) != settings.get(key)
            ]
        )
        raise LceError(
            f"{folder}: holds results of other settings ({'; '.join(differing)}); "
            "remove the folder or choose another one"
        )
    save_config(Path(folder) / MADE_WITH, settings, command)
