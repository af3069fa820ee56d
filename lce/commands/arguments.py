"""From the command line to values: what each command can be told, and where each value comes from."""

import json
import re
from argparse import ArgumentError
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_origin

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from lce.commands.applicable import check_applicable, check_sparsity
from lce.commands.manual import manual, overview
from lce.foundations.configuration import read_configuration
from lce.foundations.errors import LceError
from lce.foundations.paths import shipped

Adds = Callable[[ArgumentParser], None]
Command = Callable[[Namespace], None]
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?\.(inf|nan)")
SHIPPED = {
    "pretrain": "configs/pretrain.yaml makes the bundled model",
    "train-sae": "configs/sae.yaml makes the bundled autoencoder",
    "pretrain-clip": "configs/clip.yaml makes the bundled CLIP",
    "pretrain-projector": "configs/vlm.yaml makes the bundled projector",
    **dict.fromkeys(("localize heads", "edit heads"), "configs/audit.yaml is what `make audit` does"),
    **dict.fromkeys(("localize directions", "edit directions"), "configs/lals.yaml is what `make lals` does"),
    **dict.fromkeys(("localize features", "edit features"), "configs/features.yaml is what `make features` does"),
}
"""What there is for commands that read no configuration by themselves."""
PAIRS = ("--contrast",)
"""Options that take two words."""
KINDS = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false", "NoneType": "null"}


class CommandParser(ArgumentParser):
    """The parser of one command, whose help is a page of the manual.

    Attributes:
        origins: the configuration file that a setting comes from, by the setting's name.
    """

    def __init__(self, *arguments: Any, command: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.command = command
        self.origins: dict[str, str] = {}

    def format_help(self, *_: Any) -> str:
        return manual(self.command, self.description or "", self._actions, self.origins)


@dataclass(frozen=True)
class Arguments:
    """What a command can be told.

    Attributes:
        settings: adds what a configuration can hold too; without it, there are no configurations.
        own: adds what is said on the command line alone.
        config: configuration that is read where none is named, if it exists.
        words: settings that may be given without their names, all of them in this order, anywhere.
    """

    settings: Adds | None = None
    own: Adds = field(default=lambda parser: None)
    config: Path | None = None
    words: tuple[str, ...] = ()


def chosen(program: str, commands: Mapping[str, Command], arguments: list[str]) -> tuple[str, list[str]]:
    """The one of ``commands`` that the first of ``arguments`` names, and the other arguments."""
    if not arguments:
        raise LceError(f"expected `{program} COMMAND`; the commands are {', '.join(commands)}")
    name, *rest = arguments
    if name in ("-h", "--help"):
        about = {name: (command.__doc__ or "").partition("\n")[0] for name, command in commands.items()}
        print(overview(program, about), end="")
        raise SystemExit(0)
    if name not in commands:
        raise LceError(f"unknown command `{program} {name}`; the commands are {', '.join(commands)}")
    return name, rest


def parse(command: str, description: str, arguments: Sequence[str], known: Arguments) -> Namespace:
    """The values for ``command``: from the command line, else from configurations, else the defaults.

    Raises:
        LceError: a configuration cannot be used; an option is unknown, does not matter to the command, or has a value
            of the wrong type.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = CommandParser(command=command, description=description, exit_on_error=False)
    known.own(parser)
    if known.settings:
        default = f"without one, {known.config}" if known.config else SHIPPED.get(command, "")
        parser.add_argument("--config", type=str, action="append", help=f"YAML file with settings; {default}")
        known.settings(parser)
        arguments, files = _without_configurations(arguments)
        if not files and known.config and shipped(known.config).exists():
            files = [str(known.config)]
        for file in files:
            _configure(parser, known.settings, file)
    words, options = separate(parser, arguments)
    if known.words:
        has_contrast = any(option.startswith("--contrast=") for option in options) or (
            "reference" in known.words and parser.get_default("contrast")
        )
        words, options = [], _named(known.words[:1] if has_contrast else known.words, words) + options
    given = _given(parser, options)
    try:
        values = parser.parse_args([*words, *options])
    except ArgumentError as error:
        raise LceError(_plain(error)) from error
    if "share" in given and "count" not in given:
        values.count = None  # of a configuration
    check_applicable(command, given, values)
    if command == "train":
        check_sparsity(values, given, parser.origins)
    return parser.instantiate(values)


def _without_configurations(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The ``arguments`` without those that name configurations, and the files that these name."""
    others, files, left = [], [], iter(arguments)
    for argument in left:
        name, _, value = argument.partition("=")
        if name != "--config":
            others.append(argument)
        elif file := value or next(left, ""):
            files.append(file)
        else:
            raise LceError("--config: expected the name of a YAML file")
    return others, files


def _configure(parser: CommandParser, settings: Adds, file: str) -> None:
    """Make what is in the configuration ``file`` the defaults of ``parser``."""
    found = settings_in(file, settings)
    if "share" in found:
        found = {"count": None} | found  # of an earlier configuration
    parser.set_defaults(found)
    parser.origins.update(dict.fromkeys(found, file))


def settings_in(file: str | Path, settings: Adds) -> dict[str, Any]:
    """What a configuration says, by the names of the ``settings``, in their types.

    Raises:
        LceError: it cannot be read, names a setting that there is not, or has a value of the wrong type.
    """
    reader = _reader(settings)
    content = read_configuration(file)
    try:
        for action in reader._actions:
            if not action.dest.endswith(".help"):  # what jsonargparse adds to a list of dataclasses
                _check_groups(content, action.dest.split(".")[:-1])
        return dict(reader.parse_object(content, defaults=False).items())
    except (ArgumentError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise LceError(f"{file}: {_plain(error)}") from error


@cache
def _reader(settings: Adds) -> ArgumentParser:
    reader = ArgumentParser(exit_on_error=False)
    settings(reader)
    return reader


def _check_groups(content: dict[str, Any], names: Sequence[str]) -> None:
    """Raises ValueError if a group of settings has something else than settings below it."""
    for i, name in enumerate(names):
        if name not in content:
            return
        content = content[name]
        if not isinstance(content, dict):
            raise ValueError(f"{'.'.join(names[: i + 1])}: expected settings below it, got {content!s:.40}")


def _plain(error: Exception) -> str:
    """What jsonargparse says, in one line and without its words for keys and types."""
    text = re.sub(r"<class '(\w+)'>|\b(NoneType)\b", lambda m: KINDS.get(m[1] or m[2], m[1]), str(error))
    text = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", text)
    wanted = re.search(r"Subtypes: \[(.+)\]", text) or re.search(
        r"Expected (?:a )?(.+?)(?:\. Got|$)", text, re.MULTILINE
    )
    key = re.search(r'Parser key "([^"]+)"', text)
    got = re.search(r"(?:Got|Given) value: (.*)", text)
    if key and wanted and got:
        return f"{key[1]}: expected {wanted[1].replace(', null', ' or null')}. Got value: {got[1]}"
    return re.sub(r'Parser key "([^"]+)":', r"\1:", text)


def separate(parser: ArgumentParser, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The ``arguments`` that are no options, wherever they stand, and the options with their values.

    The numbers that follow an option which takes a list are its list, and two words follow one that takes a pair.
    """
    actions = {text: action for action in parser._actions for text in action.option_strings}
    words: list[str] = []
    options: list[str] = []
    left = deque(arguments)
    while left:
        argument = left.popleft()
        name, equals, value = argument.partition("=")
        action = actions.get(name)
        if not argument.startswith("--"):
            (options if argument == "-h" else words).append(argument)
        elif (action and action.nargs == 0) or not (equals or left):
            options.append(argument)
        else:
            values = [value if equals else left.popleft()]
            if name in PAIRS and not equals and not values[0].startswith("["):
                values = [f"[{', '.join(map(json.dumps, [values[0], *([left.popleft()] if left else [])]))}]"]
            if get_origin(getattr(action, "_typehint", None)) is list and NUMBER.fullmatch(values[0]):
                while left and NUMBER.fullmatch(left[0]):
                    values.append(left.popleft())
                values = [f"[{', '.join(values)}]"]
            options.append(f"{name}={values[0]}")
    return words, options


def _named(names: Sequence[str], words: Sequence[str]) -> list[str]:
    """The ``words`` as options of these ``names``."""
    if words and len(words) != len(names):
        wanted = " and ".join(name.upper() for name in names)
        neither = ", or neither" if len(names) > 1 else ", or none"
        raise LceError(f"expected {wanted}{neither}; got {' '.join(words)}")
    return [f"--{name}={word}" for name, word in zip(names, words, strict=bool(words))]


def _given(parser: ArgumentParser, options: Sequence[str]) -> list[str]:
    """The settings that the ``options`` name; LceError if one is given twice."""
    names = {text: action.dest for action in parser._actions for text in action.option_strings}
    found = [names[name] for option in options if (name := option.partition("=")[0].removesuffix("+")) in names]
    if twice := [name for name, times in Counter(found).items() if times > 1]:
        raise LceError(f"{twice[0]}: is given twice")
    return found
