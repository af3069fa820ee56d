"""From the command line to values: what each command can be told, and where each value comes from."""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from lce.commands.applicable import check_applicable, check_sparsity
from lce.commands.checkpoint_settings import EditSettings, LocalizeSettings
from lce.commands.manual import manual, overview
from lce.config import PretrainSettings, Settings, TrainerSettings
from lce.foundations.configuration import read_configuration
from lce.foundations.errors import LceError
from lce.study.settings import StudySettings

Adds = Callable[[ArgumentParser], None]
Command = Callable[[Namespace], None]
DEFAULT_CONFIG = Path("configs/quickstart.yaml")
KINDS = {"int": "an integer", "float": "a number", "str": "a text", "bool": "true or false", "NoneType": "null"}
STUDY_CONFIG = Path("configs/study.yaml")


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
    """

    settings: Adds | None = None
    own: Adds = field(default=lambda parser: None)
    config: Path | None = None


def experiment_settings(parser: ArgumentParser) -> None:
    parser.add_class_arguments(Settings, skip={"alpha"})
    parser.add_argument(
        "--alpha", type=float, nargs="+", default=[2.0],
        help="strengths α of the edit, any real numbers: 1 puts the reference's values in, 0 is the unedited target",
    )  # fmt: skip
    _trainer(parser)


def pretraining_settings(parser: ArgumentParser) -> None:
    parser.add_class_arguments(PretrainSettings)
    _trainer(parser)


def study_settings(parser: ArgumentParser) -> None:
    parser.add_class_arguments(StudySettings)
    _trainer(parser)


def _trainer(parser: ArgumentParser) -> None:
    parser.add_class_arguments(TrainerSettings, "trainer", instantiate=False)


def _evaluated(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of a masked language model, or its name on the hub")
    parser.add_argument(
        "--against", type=str | None, help="another model, to compare with on the same items by paired tests"
    )
    parser.add_argument(
        "--limit", type=int | None, help="measure only the first so many items of each benchmark, for a try"
    )


def _swept(parser: ArgumentParser) -> None:
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="list the cells and what they will take")
    parser.add_argument("--status", action="store_true", help="say what is done, running, failed and left")


def _reported(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="folder of a study: the `experiment` of its configuration")


def _two_checkpoints(parser: ArgumentParser) -> None:
    parser.add_argument("target", type=str, help="folder or hub name of the model to edit")
    parser.add_argument("reference", type=str, help="folder or hub name of the model to compare it with")


def _localized(parser: ArgumentParser) -> None:
    _two_checkpoints(parser)
    parser.add_class_arguments(LocalizeSettings)
    parser.add_argument("--output", type=str, required=True, help="selection file to write")


def _edited(parser: ArgumentParser) -> None:
    _two_checkpoints(parser)
    parser.add_class_arguments(EditSettings)


ARGUMENTS = {
    "data": Arguments(experiment_settings, config=DEFAULT_CONFIG),
    "pretrain": Arguments(pretraining_settings),
    "train": Arguments(experiment_settings, config=DEFAULT_CONFIG),
    "localize": Arguments(experiment_settings, config=DEFAULT_CONFIG),
    "edit": Arguments(experiment_settings, config=DEFAULT_CONFIG),
    "evaluate": Arguments(experiment_settings, _evaluated, DEFAULT_CONFIG),
    "sweep": Arguments(study_settings, _swept, STUDY_CONFIG),
    "report": Arguments(own=_reported),
    "localize TARGET REFERENCE": Arguments(own=_localized),
    "edit TARGET REFERENCE": Arguments(own=_edited),
}


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
        default = f"without one, {known.config}" if known.config else "configs/pretrain.yaml makes the bundled model"
        parser.add_argument("--config", type=str, action="append", help=f"YAML file with settings; {default}")
        known.settings(parser)
        arguments, files = _without_configurations(arguments)
        if not files and known.config and known.config.exists():
            files = [str(known.config)]
        for file in files:
            _configure(parser, known.settings, file)
    given = _given(parser, arguments)
    try:
        values = parser.parse_args(arguments)
    except ArgumentError as error:
        raise LceError(_plain(error)) from error
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


def _given(parser: ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The names of the options among ``arguments``."""
    names = {text: action.dest for action in parser._actions for text in action.option_strings}
    options = (argument.partition("=")[0].removesuffix("+") for argument in arguments)
    return [names[option] for option in options if option in names]
