"""Attributes of people in pictures: two groups, how a table names them, and the words of prompts about them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from lce.foundations.errors import LceError

FOLDER = files("lce.data") / "attributes"
EXPECTED = "column: NAME, groups: two names, each with values: [...] and words: [...], and, if need be, also: [...]"


@dataclass(frozen=True)
class Group:
    """People of one group: what a table calls them, and the words that prompts use."""

    name: str
    values: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Attribute:
    """Two groups of people, told apart in a ``column`` of a table.

    Attributes:
        also: further words that give a group away, beside those of the prompts.
    """

    name: str
    column: str
    groups: tuple[Group, Group]
    also: tuple[str, ...] = ()

    def group_of(self, value: str) -> int | None:
        """The number of the group that a table's ``value`` stands for; None for neither."""
        return next((i for i, group in enumerate(self.groups) if value in group.values), None)

    @property
    def words(self) -> list[str]:
        return [word for group in self.groups for word in group.words]


def known_attributes() -> list[str]:
    """The names of the attributes that come with lce."""
    return sorted(Path(entry.name).stem for entry in FOLDER.iterdir())


def load_attribute(name: str) -> Attribute:
    """An attribute that comes with lce, by its ``name``, or one of a YAML file.

    Raises:
        LceError: there is none, or the file is not built like lce's own.
    """
    if name in known_attributes():
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(known_attributes())
            raise LceError(f"attribute {name}: is none of {known}, nor a YAML file that can be read") from error
    try:
        return _attribute(Path(name).stem, yaml.safe_load(text))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise LceError(f"attribute {name}: expected {EXPECTED}") from error


def _attribute(name: str, content: Any) -> Attribute:
    one, other = (
        Group(str(group), _texts(about["values"]), _texts(about["words"])) for group, about in content["groups"].items()
    )
    column = content["column"]
    is_complete = isinstance(column, str) and all((one.values, one.words, other.values, other.words))
    if not is_complete or set(one.values) & set(other.values):
        raise ValueError
    return Attribute(name, column, (one, other), _texts(content.get("also", [])))


def _texts(listed: Any) -> tuple[str, ...]:
    if not isinstance(listed, list):
        raise TypeError
    return tuple(map(str, listed))
