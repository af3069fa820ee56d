"""What may be overwritten: only a file that lce made, as the same kind of file that it is to write now."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lce.foundations.errors import LceError

COMMANDS = ("data", "train", "train-sae", "pretrain", "pretrain-clip", "pretrain-projector", "localize",
            "edit", "evaluate", "sweep")  # fmt: skip
"""The commands that save their settings."""
PAGE_MARK = '<meta name="generator" content="lce">'
PICTURE_MARK = "lce"
"""What a PNG's metadata names as its software; older versions left Matplotlib's own name there."""
LONGEST_HEADER = 10**8


def check_replaceable(path: str | Path, kind: str) -> None:
    """Raises LceError if there is something at ``path`` that lce did not make as this ``kind`` (see `KINDS`)."""
    path = Path(path)
    try:
        is_taken = path.exists() and not KINDS[kind](path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        is_taken = True
    if is_taken:
        raise LceError(f"{path}: exists and is not a {kind} made by lce; it is left as it is, name another file")


def check_selection_file(path: Path, siblings: Mapping[str, str]) -> None:
    """Raises LceError unless a selection can go to ``path``, and files of the ``siblings``' kinds beside it.

    Args:
        siblings: by the ending of their names.
    """
    if path.suffix in siblings:
        kind = siblings[path.suffix]
        raise LceError(f"{path}: is the name that a {kind} beside it gets; name the selection .safetensors")
    check_replaceable(path, "selection")
    for suffix, kind in siblings.items():
        check_replaceable(path.with_suffix(suffix), kind)


def check_other_file(path: str | Path, *inputs: str | Path) -> None:
    """Raises LceError if ``path`` is one of the files that are read to write it."""
    for given in inputs:
        if Path(path).exists() and Path(given).exists() and Path(path).samefile(given):
            raise LceError(f"{path}: would be written over while it is read; name another file")


def check_own_folder(folder: Path, config: str, command: str) -> None:
    """Raises LceError if ``folder`` holds anything, and the ``command`` did not write the settings ``config`` in it."""
    if not folder.exists() or (folder.is_dir() and all(is_temporary(path) for path in folder.iterdir())):
        return
    if not folder.is_dir() or not (folder / config).is_file():
        raise LceError(f"{folder}: exists and holds no results of lce {command}; they go to a folder of their own")
    check_replaceable(folder / config, f"settings file of {command}")


def is_temporary(path: Path) -> bool:
    """Whether it is a temporary file of a write that is under way or was killed."""
    return path.name.startswith(".lce-")


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


def settings_mark(command: str) -> str:
    """First line of the settings that a command saves: unlike a user's configuration, they may be overwritten."""
    return f"# Written by lce {command}."


def _has_mark(command: str) -> Callable[[Path], bool]:
    return lambda path: _starts_with(path, settings_mark(command))


def _has_keys(*keys: str) -> Callable[[Path], bool]:
    return lambda path: set(keys) <= set(dict(json.loads(path.read_text(encoding="utf-8"))))


KINDS: dict[str, Callable[[Path], bool]] = {
    "patch": lambda path: _record(path)["format"] in ("lce-patch", "lce-hook-patch"),
    "selection": lambda path: _record(path)["kind"] == "selection",
    "evaluation": _has_keys("scores", "measured_with"),
    "summary of a training": _has_keys("levels"),
    "record of a base model": _has_keys("base", "fingerprint", "commit"),
    "report of data": _has_keys("specification", "distinct_sentences"),
    **{f"settings file of {command}": _has_mark(command) for command in COMMANDS},
    "page": lambda path: _starts_with(path, PAGE_MARK, 2048),
    "heat map": lambda path: any(
        _starts_with(path, f"Software\0{name}", 2048) for name in (PICTURE_MARK, "Matplotlib")
    ),
}
"""Kinds of files that commands write, and how each is recognised."""
