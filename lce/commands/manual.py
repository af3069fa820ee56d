"""The help of a command: real command lines first, then the options used most, then the rest, group by group."""

import json
import shutil
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from jsonargparse import Namespace

from lce.commands.applicable import applies

INDENT, HANGING = " " * 2, " " * 8
WIDEST = 110
WORDS = dict.fromkeys(("localize", "edit"), ("[TARGET REFERENCE]",)) | dict.fromkeys(
    ("train-sae", *(f"{verb} {unit}" for verb in ("localize", "edit") for unit in ("features", "heads", "directions"))),
    ("[MODEL]",),
)
"""What may follow a command beside options that are needed."""
NAMES = {int: "INTEGER", float: "NUMBER", str: "TEXT", bool: "{true,false}"}


@cache
def texts() -> dict[str, Any]:
    """Of each command, examples, and the options used most; and of groups of options (titles), what they are about."""
    return dict(yaml.safe_load(Path(__file__).with_name("help.yaml").read_text(encoding="utf-8")))


def overview(program: str, about: Mapping[str, str]) -> str:
    """The help of `lce` itself, or of `lce patch`; ``about`` is a line on each command."""
    widest = max(map(len, about))
    lines = [f"usage: {program} COMMAND …", "", *_examples(program), "commands:"]
    lines += [f"{INDENT}{name:{widest}} {line}" for name, line in about.items()]
    lines += ["", f"`{program} COMMAND --help` explains a command."]
    return "\n".join(lines) + "\n"


def manual(command: str, description: str, actions: Sequence[Action], origins: Mapping[str, str]) -> str:
    """The help of ``command``; ``origins`` are the configuration files that values come from."""
    shown = [action for action in actions if _is_shown(command, action)]
    names = [*(a.dest.upper() for a in shown if not a.option_strings), *WORDS.get(command, ())]
    usage = " ".join(["usage: lce", command, *names, "[options]"])
    lines = [usage, "", *_wrapped(description, ""), "", *_examples(command)]
    frequent = _help(command, "frequent") or [a.dest for a in shown if "." not in a.dest]
    groups: dict[str, list[Action]] = {"frequent options": sorted(
        (a for a in shown if a.dest in frequent), key=lambda action: frequent.index(action.dest)
    )}  # fmt: skip
    titles = texts()["titles"]
    for action in shown:
        if action.dest not in frequent:
            group = action.dest.rpartition(".")[0]
            groups.setdefault(titles.get(group, group), []).append(action)
    rest = groups.pop(titles[""], [])
    for title, members in [*groups.items(), (titles[""], rest)]:
        if members:
            lines += [f"{title}:", *(line for a in members for line in _option(a, origins)), ""]
    return "\n".join(lines)


def _is_shown(command: str, action: Action) -> bool:
    """Whether ``action`` is an option that matters, and no group of options."""
    is_group = type(action).__name__ == "_ActionConfigLoad" or action.dest.endswith(".help")
    return (
        not is_group
        and action.help != SUPPRESS
        and (action.dest in ("config", "help") or applies(command, action.dest))
    )


def _help(command: str, what: str) -> list[str]:
    return list(texts().get(command, {}).get(what, []))


def _examples(command: str) -> list[str]:
    found = _help(command, "examples")
    return ["examples:", *(f"{INDENT}{example}" for example in found), ""] if found else []


def _option(action: Action, origins: Mapping[str, str]) -> list[str]:
    """The lines about one option: how it is given, what it says, its value and where that comes from."""
    name = ", ".join(text for text in action.option_strings if not text.endswith("+")) or action.dest.upper()
    hint = getattr(action, "_typehint", None) or action.type
    kind = _kind(hint) if action.option_strings and action.nargs != 0 else ""
    text = " ".join((action.help or "").split())
    if action.option_strings and hint is str and action.default is None and action.dest != "config":
        text += " (required)"
    elif action.option_strings and action.dest not in ("config", "help"):
        value = _value(action.default)
        origin = origins.get(action.dest)
        text += f" ({value}, from {origin})" if origin else f" (default: {value})"
    return [f"{INDENT}{name} {kind}{' …' if action.nargs == '+' else ''}".rstrip(), *_wrapped(text, HANGING)]


def _kind(hint: Any) -> str:
    """What a value of this type looks like on the command line."""
    origin, parts = get_origin(hint), [part for part in get_args(hint) if part is not NoneType]
    if origin is Literal:
        return f"{{{','.join(dict.fromkeys(map(str, parts)))}}}"
    if origin in (Union, UnionType):
        kinds = list(dict.fromkeys(map(_kind, parts)))
        return "NUMBER" if set(kinds) == {"NUMBER", "INTEGER"} else "|".join(kinds)
    if origin is list:
        inner = _kind(parts[0]).strip("'")  # of a list of lists, the whole is quoted once
        return f"'[{inner}, …]'"
    return NAMES.get(hint, "{…}" if is_dataclass(hint) else "TEXT")


def _value(value: Any) -> str:
    """A value as it would be given on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and any(is_dataclass(part) or isinstance(part, Namespace) for part in value):
        return f"{len(value)} of them"
    return json.dumps(value, ensure_ascii=False, default=str)


def _wrapped(text: str, indent: str) -> list[str]:
    """Paragraphs in lines that fit the terminal."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    joined: list[str] = []
    for paragraph in paragraphs:
        joined += [""] * bool(joined)
        joined += textwrap.wrap(paragraph, width, initial_indent=indent, subsequent_indent=indent, **options)
    return joined
