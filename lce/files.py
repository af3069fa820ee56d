"""Writing files so that a kill at any moment leaves either the old state or the new one, never half of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

import yaml

from lce.errors import LceError

MADE_WITH = "made-with.yaml"


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block succeeds, rename it to ``path``.

    Raises:
        LceError: it cannot be written, because the disk is full, say.
    """
    with _temporary(Path(path)) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; when the block succeeds, rename it to ``path``.

    Raises:
        LceError: ``path`` exists and is not an empty folder, or cannot be written.
    """
    path = Path(path)
    check_new(path)
    with _temporary(path) as temporary:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rmdir()
        temporary.replace(path)


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` that is gone after the block; LceError if it cannot be written."""
    path = Path(path)
    with _temporary(path, "work") as temporary:
        temporary.mkdir()
        yield temporary


@contextmanager
def _temporary(path: Path, kind: str = "tmp") -> Iterator[Path]:
    """A name beside ``path`` of this process, with nothing there before and after the block.

    What killed processes left under such names is removed, and so are, if the block fails, the folders made for it.
    """
    if not path.name:
        raise LceError(f"{path}: names no file or folder to write")
    made: list[Path] = []
    try:
        for parent in reversed(path.parents):
            if not parent.exists():
                parent.mkdir(exist_ok=True)
                made.append(parent)
        for stale in path.parent.glob(f".{escape(path.name)}.*.{kind}"):
            process = stale.suffixes[-2].removeprefix(".")
            if process.isdigit() and (int(process) == os.getpid() or not _is_running(int(process))):
                _remove(stale)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{kind}")
        try:
            yield temporary
        finally:
            _remove(temporary)
    except BaseException as error:
        for parent in reversed(made):
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def cannot_write(path: str | Path, error: OSError) -> LceError:
    return LceError(f"{str(path)[-200:]}: cannot be written ({error.strerror or error}); nothing was left behind")


def check_new(path: str | Path) -> None:
    """Raises LceError if ``path`` exists and is not an empty folder."""
    path = Path(path)
    try:
        is_taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise cannot_write(path, error) from error
    if is_taken:
        raise LceError(f"{path}: exists already; name a new folder or remove it first")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_json(path: str | Path, content: Any) -> None:
    with replaced_file(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LceError(f"{path}: cannot be read as JSON ({error})") from error


def save_config(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write resolved settings as YAML, in the form that ``--config`` takes."""
    with replaced_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")


def made_with(folder: str | Path) -> Any:
    """What `claim` recorded in ``folder``; None if nothing."""
    path = Path(folder) / MADE_WITH
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def claim(folder: str | Path, settings: dict[str, Any], results: Iterable[str]) -> None:
    """Record in ``folder`` the ``settings`` that all results in it share.

    Args:
        results: glob patterns; while nothing in the folder matches one, it can be claimed anew.

    Raises:
        LceError: the folder holds results of other settings.
    """
    recorded = made_with(folder) or {}
    if recorded == settings:
        return
    if any(True for pattern in results for _ in Path(folder).glob(pattern)):
        differing = (
            ["no settings are recorded"]
            if not recorded
            else [
                f"{key} was {recorded.get(key)!r}, now {settings.get(key)!r}"
                for key in sorted({*recorded, *settings})
                if recorded.get(key) != settings.get(key)
            ]
        )
        raise LceError(
            f"{folder}: holds results of other settings ({'; '.join(differing)}); "
            "remove the folder or choose another one"
        )
    save_config(Path(folder) / MADE_WITH, settings)
