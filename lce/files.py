"""Writing files so that a kill at any moment leaves either the old state or the new one, never half of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lce.errors import LceError


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block succeeds, rename it to ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; when the block succeeds, rename it to ``path``.

    Raises:
        LceError: ``path`` exists and is not an empty folder.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise LceError(f"{path}: exists already; name a new folder or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | Path, content: Any) -> None:
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LceError(f"{path}: cannot be read as JSON ({error})") from error


def claim(folder: str | Path, settings: dict[str, Any]) -> None:
    """Record in ``folder``/config.yaml the ``settings`` that all results in it share.

    Raises:
        LceError: the folder holds results of other settings.
    """
    path = Path(folder) / "config.yaml"
    if path.exists():
        recorded = yaml.safe_load(path.read_text(encoding="utf-8"))
        differing = [
            f"{key} was {recorded.get(key)!r}, now {settings.get(key)!r}"
            for key in sorted({*recorded, *settings})
            if recorded.get(key) != settings.get(key)
        ]
        if differing:
            raise LceError(
                f"{folder}: holds results of other settings ({'; '.join(differing)}); "
                "remove the folder or choose another one"
            )
        return
    with replaced_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
