"""What the commands share: groups of settings, as arguments of a parser and as the objects made of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from jsonargparse import ArgumentParser, Namespace

from lce.checks import check_settings
from lce.commands.arguments import Arguments
from lce.config import Settings, TrainerSettings
from lce.foundations.errors import LceError
from lce.foundations.files import read_json
from lce.foundations.overwriting import check_own_folder, check_replaceable
from lce.foundations.paths import CONFIG, RESULT

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from lce.storage.model_weights import ModelWeights

log = logging.getLogger(__name__)

Kind = TypeVar("Kind", bound="DataclassInstance")


def add_experiment(parser: ArgumentParser) -> None:
    parser.add_class_arguments(Settings)
    add_trainer(parser)


def add_trainer(parser: ArgumentParser) -> None:
    parser.add_class_arguments(TrainerSettings, "trainer", instantiate=False)


EXPERIMENT = Arguments(add_experiment, config=Path("configs/quickstart.yaml"))
COMPARISON = replace(EXPERIMENT, words=("target", "reference"))
"""An experiment whose target and reference are named by the words that follow the command."""


def settings_of(values: Namespace) -> tuple[Settings, dict[str, Any]]:
    """The experiment's settings, checked, and the arguments of Lightning's Trainer."""
    settings = read(Settings, values)
    check_settings(settings)
    return settings, values["trainer"].as_dict()


def varying(settings: Settings) -> dict[str, Any]:
    """The settings that a result can depend on."""
    return {key: value for key, value in asdict(settings).items() if key != "trust_remote_code"}


def result_name(settings: Settings, models: Iterable[ModelWeights], *parts: str) -> str:
    """A readable name that differs wherever a result of ``settings`` and ``models`` may differ."""
    from lce.foundations.seeds import derive

    short = derive(str(varying(settings)), *(model.fingerprint for model in models)) % 16**6
    others = ["contrast", *settings.contrast] if settings.contrast else [settings.reference]
    return "-".join([Path(settings.target).name, *(Path(name).name for name in others), *parts, f"{short:06x}"])


class Destination(NamedTuple):
    """Where a result goes.

    Attributes:
        folder: all of it.
        digest: what it depends on.
        is_made: whether it exists already, made from the same.
    """

    folder: Path
    digest: str
    is_made: bool

    @property
    def result(self) -> Path:
        """The file with the numbers."""
        return self.folder / RESULT


def destination_of_edit(
    experiment: str, output: str | None, name: str, patch: str | None, identity: object
) -> Destination:
    """Where `lce edit` of a unit other than weights writes.

    Args:
        name: a readable one, which what identifies the result is added to.
        identity: what the result depends on.

    Raises:
        LceError: something would be written over.
    """
    from lce.foundations.seeds import derive

    digest = f"{derive(str(identity)):016x}"
    folder = Path(output or f"{experiment}/edits/{name}-{digest[:6]}")
    found = Destination(folder, digest, is_made(folder / RESULT, digest))
    if not found.is_made:
        if output:
            check_own_folder(folder, CONFIG, "edit")
        if patch:
            check_replaceable(patch, "patch")
    return found


def named_after(*parts: str) -> str:
    """A file name made of ``parts``."""
    return "-".join(re.sub(r"[^\w.-]", "", part) for part in parts)


def is_made(result: Path, identity: str) -> bool:
    """Whether the file of a ``result`` exists for the settings and models with this ``identity``.

    Raises:
        LceError: it exists for others.
    """
    if not result.exists():
        return False
    known = read_json(result)
    if not isinstance(known, dict) or known.get("identity") != identity:
        raise LceError(
            f"{result.parent}: holds the result of other settings or models; remove it or name another --output"
        )
    log.info("%s exists already; nothing to do", result)
    return True


def read(kind: type[Kind], values: Namespace) -> Kind:
    """The settings of one ``kind`` among the parsed ``values``."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})
