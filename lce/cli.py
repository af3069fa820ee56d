"""The one entry: ``lce <command>``. Parses, calls one function, prints what it made."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from argparse import SUPPRESS, ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings

from lce.errors import LceError

DEFAULT_CONFIG = Path("configs/quickstart.yaml")

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
        name, values = _parse(arguments)
        _quieten()
        COMMANDS[name](values)
    except (LceError, ArgumentError) as error:
        print(f"lce: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lce: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _quieten() -> None:
    """Leave lce's own progress and the libraries' errors on the screen; called once the libraries are imported."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lce").setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")


def _parse(arguments: list[str]) -> tuple[str, Namespace]:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog="lce",
        exit_on_error=False,
        description="Local contrastive editing: find the few weights that carry a bias, and edit just those.",
    )
    commands = parser.add_subcommands(dest="command", required=True, metavar="COMMAND")
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, command in COMMANDS.items():
        part = ArgumentParser(description=command.__doc__, exit_on_error=False)
        commands.add_subcommand(name, part, help=command.__doc__)
        if name == wanted:
            PARSERS.get(name, _add_experiment)(part, name)
    takes_config = wanted in SHOWN and not any(a == "--config" or a.startswith("--config=") for a in arguments)
    if takes_config and DEFAULT_CONFIG.exists():
        place = arguments.index(str(wanted)) + 1
        arguments = [*arguments[:place], "--config", str(DEFAULT_CONFIG), *arguments[place:]]
    parsed = parser.parse_args(arguments)
    return parsed.command, parser.instantiate(parsed)[parsed.command]


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


def _add_patch(parser: ArgumentParser, name: str) -> None:
    actions = parser.add_subcommands(dest="action", required=True, metavar="ACTION")
    for action, (summary, arguments) in PATCH_ACTIONS.items():
        part = ArgumentParser(description=summary, exit_on_error=False)
        actions.add_subcommand(action, part, help=summary)
        for argument, explanation in arguments.items():
            required = {"required": True} if argument.startswith("--") else {}
            part.add_argument(argument, type=str, help=explanation, **required)


def _settings(values: Namespace) -> tuple[Any, dict[str, Any]]:
    """The experiment's settings, and the arguments of Lightning's Trainer."""
    from lce.config import Settings

    return Settings(**{field.name: values[field.name] for field in fields(Settings)}), values["trainer"].as_dict()


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

    settings = PretrainSettings(**{field.name: values[field.name] for field in fields(PretrainSettings)})
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
    """Find the weights in which target and reference differ; write the selection and its heat map."""
    from lce.editing import run_localize
    from lce.tables import print_selection

    path, selection = run_localize(_settings(values)[0])
    print_selection(selection.by_layer_and_component())
    print(f"{selection.count:,} of {selection.size:,} weights ({selection.share:.3%})")
    print(path)


def edit(values: Namespace) -> None:
    """Edit the target where it differs from the reference, measure what changed, and write the patch."""
    from lce.data.prepare import prepare_examples
    from lce.editing import run_edit
    from lce.files import read_json
    from lce.tables import print_edits

    settings, trainer_options = _settings(values)
    prepare_examples(settings.data)
    path = run_edit(settings, trainer_options)
    print_edits(read_json(path))
    print(path)


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


def patch(values: Namespace) -> None:
    """Make, apply, take back or look at a patch: the few weights that an edit changed."""
    from lce.patch import Patch
    from lce.patch.folders import apply_patch, describe, export_patch, revert_patch

    about = values[values.action]
    if values.action == "export":
        made = export_patch(about.base, about.edited)
        made.save(about.out)
        print(f"{made.count:,} changed weights, written to {about.out}")
    elif values.action == "apply":
        apply_patch(about.model, Patch.load(about.patch), about.out)
        print(f"patched model written to {about.out}")
    elif values.action == "revert":
        revert_patch(about.model, Patch.load(about.patch), about.out)
        print(f"base model written to {about.out}")
    else:
        print(describe(Patch.load(about.patch), Path(about.patch).stat().st_size))


PATCH_ACTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "export": (
        "Write the patch that turns one checkpoint into another.",
        {
            "base": "folder or hub name of the model before the edit",
            "edited": "folder or hub name of the model after the edit",
            "--out": "patch file to write",
        },
    ),
    "apply": (
        "Write a copy of a model with a patch applied.",
        {
            "model": "folder or hub name of the model that the patch was made for",
            "--patch": "patch file",
            "--out": "folder to write; plain transformers loads it",
        },
    ),
    "revert": (
        "Write a copy of a patched model with the patch taken back, bit for bit.",
        {
            "model": "folder or hub name of the patched model",
            "--patch": "patch file",
            "--out": "folder to write",
        },
    ),
    "inspect": ("Print what a patch changes and where it comes from.", {"patch": "patch file"}),
}

COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "data": data,
    "pretrain": pretrain,
    "train": train,
    "localize": localize,
    "edit": edit,
    "evaluate": evaluate,
    "patch": patch,
}

PARSERS: dict[str, Callable[[ArgumentParser, str], None]] = {"pretrain": _add_pretrain, "patch": _add_patch}

if __name__ == "__main__":
    sys.exit(main())
