"""What may be written over: only a file that lce made as what is to be written there now. All else stays."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lce.errors import LceError

SETTINGS_MARK = "# Written by lce."
"""First line of settings that lce saves: unlike a configuration that somebody wrote, they may be written anew."""
PAGE_MARK = '<meta name="generator" content="lce">'
PICTURE_MARK = "lce"
"""What a PNG's metadata names as its software."""
LONGEST_HEADER = 10**8


def check_replaceable(path: str | Path, kind: str) -> None:
    """Raises LceError if there is something at ``path`` that lce did not make as this ``kind`` (see `KINDS`)."""
    path = Path(path)
    try:
        is_taken = path.exists() and not KINDS[kind](path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        is_taken = True
    if is_taken:
        raise LceError(f"{path}: exists and is no {kind} that lce made; it stays as it is, name another file")


def check_other_file(path: str | Path, *inputs: str | Path) -> None:
    """Raises LceError if ``path`` is one of the files that are read to write it."""
    for given in inputs:
        if Path(path).exists() and Path(given).exists() and Path(path).samefile(given):
            raise LceError(f"{path}: would be written over while it is read; name another file")


def check_own_folder(folder: Path, config: str) -> None:
    """Raises LceError if ``folder`` holds anything and lce did not write the settings ``config`` in it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / config).is_file() or not _is_settings(folder / config):
        raise LceError(f"{folder}: exists and holds no results of lce; they go to a folder of their own")


def _record(path: Path) -> dict[str, Any]:
    """What lce wrote into the header of a safetensors file."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > LONGEST_HEADER:
            return {}
        record: dict[str, Any] = json.loads(json.loads(file.read(length))["__metadata__"]["lce"])
    return record


def _starts_with(path: Path, text: str, within: int = 0) -> bool:
    """Whether the file has ``text`` at its start, or among its first bytes."""
    with path.open("rb") as file:
        found = file.read(max(within, len(text.encode())))
    return text.encode() in found


def _is_settings(path: Path) -> bool:
    return _starts_with(path, SETTINGS_MARK)


def _has_keys(*keys: str) -> Callable[[Path], bool]:
    return lambda path: set(keys) <= set(dict(json.loads(path.read_text(encoding="utf-8"))))


KINDS: dict[str, Callable[[Path], bool]] = {
    "patch": lambda path: _record(path)["format"] == "lce-patch",
    "selection": lambda path: _record(path)["kind"] == "selection",
    "evaluation": _has_keys("scores", "measured_with"),
    "summary of a training": _has_keys("levels"),
    "report of data": _has_keys("specification", "distinct_sentences"),
    "settings": _is_settings,
    "page": lambda path: _starts_with(path, PAGE_MARK, 2048),
    "picture": lambda path: _starts_with(path, f"Software\0{PICTURE_MARK}", 2048),
}
"""Kinds of files that commands write, and how each is told."""
