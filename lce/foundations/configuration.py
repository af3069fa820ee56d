"""Reading a configuration file: a YAML mapping of settings, or one line that says why it cannot be used."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from lce.foundations.errors import LceError
from lce.foundations.paths import shipped

MOST_NODES = 10_000
"""Keys and values, aliases followed, that a configuration may have; a few lines of YAML can stand for billions."""


def read_configuration(path: str | Path) -> dict[str, Any]:
    """The content of a configuration file, whose settings are not checked yet.

    Raises:
        LceError: it is missing or no YAML, holds no mapping, gives a key twice, or holds far too many values.
    """
    try:
        text = shipped(path).read_text(encoding="utf-8")
        for count, node in enumerate(_nodes(yaml.compose(text, Loader=yaml.SafeLoader))):
            if count > MOST_NODES:
                raise LceError(f"{path}: holds more than {MOST_NODES:,} values; is this a configuration?")
            _check_keys(node, path)
        content = get_loader("yaml")(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        if isinstance(error, LceError):
            raise
        raise LceError(f"{path}: cannot be read as YAML ({_reason(error)})") from error
    if not isinstance(content, dict):
        found = "is empty" if not content else "holds no settings"
        raise LceError(f"{path}: {found}; expected lines such as `experiment: runs/mine`")
    return content


def _nodes(node: yaml.Node | None) -> Iterator[yaml.Node]:
    if node is None:
        return
    yield node
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    for child in children:
        for part in child if isinstance(child, tuple) else (child,):
            yield from _nodes(part)


def _check_keys(node: yaml.Node, path: str | Path) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, _ in node.value:
        place = f"{path}, line {key.start_mark.line + 1}"
        if key.tag != "tag:yaml.org,2002:str":
            raise LceError(f"{place}: expected the name of a setting before the colon, got {key.value!s:.40}")
        if key.value in seen:
            raise LceError(f"{place}: {key.value} is given twice")
        seen.add(key.value)


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        return f"line {error.problem_mark.line + 1}: {error.problem}" if error.problem_mark else error.problem
    return "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
