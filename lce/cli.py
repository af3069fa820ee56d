"""The one entry: ``lce <command>``. Parses, calls one function, prints what it made."""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings

from lce.errors import LceError
from lce.logs import quieten

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")
DEFAULT_CONFIG = Path("configs/quickstart.yaml")
STUDY_CONFIG = Path("configs/study.yaml")

COMMON = {"experiment", "base", "seed", "data", "trainer"}
MODELS = {"target", "reference", "sparsity", "localization", "k", "selection", "output"}
SHOWN = {
    "data": {"data"},
    "train": COMMON | {"variant", "sparsities", "sparsity", "train", "output"},
    "localize": COMMON - {"base", "trainer"} | MODELS,
    "edit": COMMON - {"base"} | MODELS | {"strategy", "alpha", "uninformed_draws", "evaluation", "train"},
    "evaluate": {"experiment", "data", "evaluation", "train", "trainer", "output", "seed"},
}
"""Per command, the settings that matter to it and that its help shows; a configuration may hold them all."""

MANAGED = {
    "logger", "callbacks", "max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "val_check_interval",
    "check_val_every_n_epoch", "num_sanity_val_steps", "enable_checkpointing", "enable_model_summary",
    "use_distributed_sampler", "default_root_dir", "reload_dataloaders_every_n_epochs", "overfit_batches",
    "fast_dev_run", "model_registry", "limit_test_batches", "limit_val_batches",
    "limit_predict_batches", "barebones", "plugins",
    "inference_mode", "profiler", "benchmark", "detect_anomaly", "sync_batchnorm", "limit_train_batches",
    "enable_progress_bar", "deterministic", "enable_autolog_hparams",
}  # fmt: skip
"""Trainer arguments that lce sets itself or that would break its promises."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``lce`` with ``arguments`` (by default the command line's); return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command, values = _parse(arguments)
        quieten()
        command(values)
        sys.stdout.flush()
    except (LceError, ArgumentError) as error:
        print(f"lce: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("lce: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parse(arguments: list[str]) -> tuple[Callable[[Namespace], None], Namespace]:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog="lce",
        exit_on_error=False,
        description="Local contrastive editing: find the few weights that carry a bias, and edit just those.",
    )
    commands = parser.add_subcommands(dest="command", required=True, metavar="COMMAND")
    wanted = next((argument for argument in arguments if not argument.startswith("-")), "")
    place = arguments.index(wanted) + 1 if wanted else 0
    has_checkpoints = wanted in ON_CHECKPOINTS and not "".join(arguments[place : place + 1]).startswith("-")
    table = COMMANDS | ON_CHECKPOINTS if has_checkpoints and place < len(arguments) else COMMANDS
    for name, command in table.items():
        part = ArgumentParser(description=command.__doc__, exit_on_error=False)
        commands.add_subcommand(name, part, help=(command.__doc__ or "").partition("\n")[0])
        if name == wanted:
            PARSERS.get(command, _add_experiment)(part, name)
    is_configured = any(a == "--config" or a.startswith("--config=") for a in arguments)
    is_experiment = wanted in SHOWN and table[wanted] not in PARSERS
    default = DEFAULT_CONFIG if is_experiment else STUDY_CONFIG if wanted == "sweep" else None
    if default and not is_configured and default.exists():
        arguments = [*arguments[:place], "--config", str(default), *arguments[place:]]
    parsed = parser.parse_args(arguments)
    return table[parsed.command], parser.instantiate(parsed)[parsed.command]


def _add_experiment(parser: ArgumentParser, name: str) -> None:
    from lce.config import Settings

    if name == "evaluate":
        parser.add_argument("model", type=str, help="folder of a masked language model, or its name on the hub")
        parser.add_argument(
            "--against", type=str | None, help="another model, to compare with on the same items by paired tests"
        )
        parser.add_argument(
            "--limit", type=int | None, help="measure only the first so many items of each benchmark, for a try"
        )
    parser.add_argument(
        "--config", action=ActionConfigFile, help=f"YAML file with settings; without one, {DEFAULT_CONFIG}"
    )
    parser.add_class_arguments(Settings, skip={"alpha"})
    parser.add_argument(
        "--alpha", type=float, nargs="+", default=[2.0],
        help="strengths α of the edit, any real numbers: 1 puts the reference's values in, 0 is the unedited target",
    )  # fmt: skip
    _add_trainer(parser)
    for action in parser._actions:
        if action.dest.split(".")[0] not in SHOWN[name] | {"help", "config", "model", "against", "limit"}:
            action.help = SUPPRESS


def _add_pretrain(parser: ArgumentParser, name: str) -> None:
    from lce.pretraining import PretrainSettings

    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with settings, configs/pretrain.yaml")
    parser.add_class_arguments(PretrainSettings)
    _add_trainer(parser)


def _add_trainer(parser: ArgumentParser) -> None:
    from lightning import Trainer

    parser.add_class_arguments(Trainer, "trainer", skip=MANAGED, instantiate=False)
    parser.set_defaults({"trainer.devices": 1, "trainer.log_every_n_steps": 10})


def _add_sweep(parser: ArgumentParser, name: str) -> None:
    from lce.experiments.study import StudySettings

    parser.add_argument(
        "--config", action=ActionConfigFile, help=f"YAML file with settings; without one, {STUDY_CONFIG}"
    )
    parser.add_class_arguments(StudySettings)
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="list the cells and what they will take")
    parser.add_argument("--status", action="store_true", help="say what is done, running, failed and left")
    _add_trainer(parser)


def _add_report(parser: ArgumentParser, name: str) -> None:
    parser.add_argument("run", type=str, help="folder of a study: the `experiment` of its configuration")


def _add_patch(parser: ArgumentParser, name: str) -> None:
    from lce.patch.commands import add_actions

    add_actions(parser)


def _add_checkpoints(parser: ArgumentParser, name: str) -> None:
    from lce.checkpoint_editing import EditSettings, LocalizeSettings

    parser.add_argument("target", type=str, help="folder or hub name of the model to edit")
    parser.add_argument("reference", type=str, help="folder or hub name of the model to compare it with")
    if name == "edit":
        parser.add_class_arguments(EditSettings)
    else:
        parser.add_class_arguments(LocalizeSettings)
        parser.add_argument("--output", type=str, required=True, help="selection file to write")


def _settings(values: Namespace) -> tuple[Any, dict[str, Any]]:
    """The experiment's settings, and the arguments of Lightning's Trainer."""
    from lce.config import Settings

    return _read(Settings, values), values["trainer"].as_dict()


def _read(kind: type[Kind], values: Namespace) -> Kind:
    """The settings of one ``kind`` among the parsed ``values``."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})


def data(values: Namespace) -> None:
    """Fetch text and benchmarks, augment, and write the examples that models train on."""
    from lce.data.prepare import prepare_examples
    from lce.tables import print_report

    settings = _settings(values)[0].data
    print_report(prepare_examples(settings), Path(settings.folder))


def pretrain(values: Namespace) -> None:
    """Make a small masked language model, for machines that reach no model hub."""
    from lce.pretraining import PretrainSettings
    from lce.pretraining import pretrain as run

    settings = _read(PretrainSettings, values)
    print(run(settings, values["trainer"].as_dict()))


def train(values: Namespace) -> None:
    """Fine-tune one variant and prune it step by step; a killed run goes on where it was."""
    from lce.data.prepare import prepare_examples
    from lce.pruning import iterative_magnitude_pruning

    settings, trainer_options = _settings(values)
    if int(os.environ.get("RANK", 0)) == 0:
        prepare_examples(settings.data)
    print(iterative_magnitude_pruning(settings, trainer_options))


def localize(values: Namespace) -> None:
    """Find the weights in which target and reference differ; write the selection and its heat map.

    With two checkpoints first, `lce localize TARGET REFERENCE`, it works on their files, whatever the architecture and
    size; `lce localize TARGET REFERENCE --help` says how.
    """
    from lce.editing import run_localize
    from lce.tables import print_selection

    path, selection = run_localize(_settings(values)[0])
    print_selection(selection)
    print(path)


def localize_checkpoints(values: Namespace) -> None:
    """Find the weights in which two checkpoints differ; write the selection and its heat map."""
    from lce.checkpoint_editing import LocalizeSettings, run_localize
    from lce.tables import print_selection

    path = Path(values.output)
    selection = run_localize(values.target, values.reference, _read(LocalizeSettings, values), path)
    print_selection(selection)
    print(path)


def edit(values: Namespace) -> None:
    """Edit the target where it differs from the reference, measure what changed, and write the patch.

    With two checkpoints first, `lce edit TARGET REFERENCE`, it works on their files, whatever the architecture and
    size, and measures nothing; `lce edit TARGET REFERENCE --help` says how.
    """
    from lce.data.prepare import prepare_examples
    from lce.editing import run_edit
    from lce.files import read_json
    from lce.tables import print_edits

    settings, trainer_options = _settings(values)
    prepare_examples(settings.data)
    path = run_edit(settings, trainer_options)
    print_edits(read_json(path))
    print(path)


def edit_checkpoints(values: Namespace) -> None:
    """Edit a checkpoint where it differs from another one; write the patch, the edited checkpoint, or both."""
    from lce.checkpoint_editing import EditSettings, run_edit

    settings = _read(EditSettings, values)
    changed = run_edit(values.target, values.reference, settings)
    print(f"{sum(about.count for about in changed.values()):,} weights changed in {len(changed)} parameters")
    for written in filter(None, (settings.patch, settings.output)):
        print(written)


def evaluate(values: Namespace) -> None:
    """Measure bias and perplexity of a masked language model, alone or against another one."""
    from lce.evaluation import run_evaluate
    from lce.files import read_json
    from lce.tables import print_evaluation

    settings, trainer_options = _settings(values)
    if values.limit is not None:
        settings.evaluation.limit = values.limit
    path = run_evaluate(settings, trainer_options, values.model, values.against)
    print_evaluation(read_json(path))
    print(path.with_suffix("") / "report.html")
    print(path)


def sweep(values: Namespace) -> None:
    """Run a study: train, edit and measure all its cells, on the cores of this machine or on a Ray cluster.

    A cell that has its result is not run again: the same command goes on with a study that was killed, and tries again
    what failed. One model over several GPUs trains by `lce train` (torchrun …) into the study's folder beforehand.
    """
    from lce.experiments.study import StudySettings
    from lce.experiments.sweep import run_sweep, status
    from lce.experiments.tables import print_plan, print_status

    study, trainer_options = _read(StudySettings, values), values["trainer"].as_dict()
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
        from lce.experiments.report import write_report
    except ModuleNotFoundError as error:
        raise LceError(f"lce report: needs {error.name}, which `pip install 'lce[study]'` brings") from error
    print(write_report(Path(values.run)))


def patch(values: Namespace) -> None:
    """Make, apply, take back, combine or look at a patch: the few weights that an edit changed."""
    from lce.patch.commands import ACTIONS

    ACTIONS[values.action][0](values[values.action])


COMMANDS: dict[str, Callable[[Namespace], None]] = {
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

ON_CHECKPOINTS: dict[str, Callable[[Namespace], None]] = {"localize": localize_checkpoints, "edit": edit_checkpoints}
"""What a command does where two checkpoints follow its name."""

PARSERS: dict[Callable[[Namespace], None], Callable[[ArgumentParser, str], None]] = {
    pretrain: _add_pretrain,
    sweep: _add_sweep,
    report: _add_report,
    patch: _add_patch,
    localize_checkpoints: _add_checkpoints,
    edit_checkpoints: _add_checkpoints,
}
"""What adds a command's arguments, where these are not an experiment's."""

if __name__ == "__main__":
    sys.exit(main())
