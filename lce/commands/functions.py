"""What ``lce <command>`` does, apart from `lce patch`: check the values, call one function, print what it made.

The libraries that do the work are imported when the values are known to be right.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import Namespace

from lce.checks import check_comparison, check_positive, check_pretraining, check_settings, check_trainer
from lce.commands.arguments import Command
from lce.commands.checkpoint_settings import EditSettings, LocalizeSettings
from lce.config import PretrainSettings, Settings
from lce.foundations.errors import LceError
from lce.study.settings import StudySettings, check_study

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


def _settings(values: Namespace) -> tuple[Any, dict[str, Any]]:
    """The experiment's settings, checked, and the arguments of Lightning's Trainer."""
    settings = _read(Settings, values)
    check_settings(settings)
    return settings, values["trainer"].as_dict()


def _read(kind: type[Kind], values: Namespace) -> Kind:
    """The settings of one ``kind`` among the parsed ``values``."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def data(values: Namespace) -> None:
    """Fetch text and benchmarks, augment, and write the examples that models train on."""
    settings = _settings(values)[0].data

    from lce.commands.tables import print_report
    from lce.data.prepare import prepare_examples

    print_report(prepare_examples(settings), Path(settings.folder))


def pretrain(values: Namespace) -> None:
    """Make a small masked language model, for machines that reach no model hub."""
    settings, trainer_options = _read(PretrainSettings, values), values["trainer"].as_dict()
    check_pretraining(settings)
    check_trainer(trainer_options, settings.train.batch_size)

    from lce.training.pretraining import pretrain as run
    from lce.training.trainer_options import check_machine

    check_machine(trainer_options)
    print(run(settings, trainer_options))


def train(values: Namespace) -> None:
    """Fine-tune one variant and prune it step by step; a killed run resumes where it was."""
    settings, trainer_options = _settings(values)
    check_trainer(trainer_options, settings.train.batch_size)

    from lce.data.prepare import prepare_examples
    from lce.training.pruning.imp import iterative_magnitude_pruning
    from lce.training.trainer_options import check_machine

    check_machine(trainer_options)
    prepare_examples(settings.data)
    print(iterative_magnitude_pruning(settings, trainer_options))


def localize(values: Namespace) -> None:
    """Find the weights in which target and reference differ; write the selection and its heat map.

    With two checkpoints first, `lce localize TARGET REFERENCE`, it works on their files, whatever the architecture and
    size; `lce localize TARGET REFERENCE --help` says how.
    """
    settings = _settings(values)[0]

    from lce.commands.editing import run_localize
    from lce.commands.tables import print_selection

    path, selection = run_localize(settings)
    print_selection(selection)
    print(path)


def localize_checkpoints(values: Namespace) -> None:
    """Find the weights in which two checkpoints differ; write the selection and its heat map."""
    settings, path = _read(LocalizeSettings, values), Path(values.output)
    check_comparison(settings)

    from lce.commands.checkpoint_editing import run_localize
    from lce.commands.tables import print_selection

    selection = run_localize(values.target, values.reference, settings, path)
    print_selection(selection)
    print(path)


def edit(values: Namespace) -> None:
    """Edit the target where it differs from the reference, measure what changed, and write the patch.

    With two checkpoints first, `lce edit TARGET REFERENCE`, it works on their files, whatever the architecture and
    size, and measures nothing; `lce edit TARGET REFERENCE --help` says how.
    """
    settings, trainer_options = _settings(values)

    from lce.commands.editing import run_edit
    from lce.commands.tables import print_edits
    from lce.data.prepare import prepare_examples
    from lce.foundations.files import read_json
    from lce.training.trainer_options import check_machine, on_one_device

    check_machine(on_one_device(trainer_options))
    prepare_examples(settings.data)
    path = run_edit(settings, trainer_options)
    print_edits(read_json(path))
    print(path)


def edit_checkpoints(values: Namespace) -> None:
    """Edit a checkpoint where it differs from another one; write the patch, the edited checkpoint, or both."""
    settings = _read(EditSettings, values)
    check_comparison(settings)

    from lce.commands.checkpoint_editing import run_edit

    changed = run_edit(values.target, values.reference, settings)
    print(f"{sum(about.count for about in changed.values()):,} weights changed in {len(changed)} parameters")
    for written in filter(None, (settings.patch, settings.output)):
        print(written)


def evaluate(values: Namespace) -> None:
    """Measure bias and perplexity of a masked language model, alone or against another one."""
    settings, trainer_options = _settings(values)
    check_positive(values.limit, "limit", "a positive number of items")
    if values.limit is not None:
        settings.evaluation.limit = values.limit

    from lce.commands.tables import print_evaluation
    from lce.evaluation.evaluator import run_evaluate
    from lce.foundations.files import read_json
    from lce.training.trainer_options import check_machine, on_one_device

    check_machine(on_one_device(trainer_options))
    path = run_evaluate(settings, trainer_options, values.model, values.against)
    print_evaluation(read_json(path))
    print(path.with_suffix("") / "report.html")
    print(path)


def sweep(values: Namespace) -> None:
    """Run a study: train, edit and measure all its cells, on the cores of this machine or on a Ray cluster.

    A cell that has its result is not run again: the same command resumes a study that was killed, and tries again
    what failed. One model over several GPUs trains by `lce train` (torchrun …) into the study's folder beforehand.
    """
    study, trainer_options = _read(StudySettings, values), values["trainer"].as_dict()
    check_study(study)
    check_trainer(trainer_options, study.train.batch_size)

    from lce.study.status import print_plan, print_status
    from lce.study.sweep import run_sweep, status

    if values.dry_run:
        print_plan(study, trainer_options)
    elif values.status:
        print_status(status(study, trainer_options))
    else:
        found = run_sweep(study, trainer_options)
        print_status(found)
        if found.failed:
            raise LceError(f"{len(found.failed)} cells failed; the same command tries them again")
        print(study.experiment)


def report(values: Namespace) -> None:
    """Write the report of a study: figures, tables, and which of the paper's claims hold."""
    try:
        from lce.study.report.report import write_report
    except ModuleNotFoundError as error:
        raise LceError(f"lce report: needs {error.name}, which `pip install 'lce[study]'` brings") from error
    print(write_report(Path(values.run)))


def patch(values: Namespace) -> None:
    """Make, apply, take back, combine or look at a patch: the few weights that an edit changed."""


COMMANDS: dict[str, Command] = {
    "data": data,
    "pretrain": pretrain,
    "train": train,
    "localize": localize,
    "edit": edit,
    "evaluate": evaluate,
    "sweep": sweep,
    "report": report,
    "patch": patch,
}

ON_CHECKPOINTS: dict[str, Command] = {"localize": localize_checkpoints, "edit": edit_checkpoints}
"""What a command does where two checkpoints follow its name."""
