"""`lce evaluate`: one model measured, alone or against another."""

from dataclasses import replace

from jsonargparse import ArgumentParser, Namespace

from lce.checks import check_positive
from lce.commands.common import EXPERIMENT, settings_of


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of a masked or causal language model, or its name on the hub")
    parser.add_argument(
        "--against", type=str | None, help="another model, to compare with on the same items by paired tests"
    )
    parser.add_argument(
        "--limit", type=int | None, help="measure only the first so many items of each benchmark, for a try"
    )


ARGUMENTS = replace(EXPERIMENT, own=_add)


def evaluate(values: Namespace) -> None:
    """Measure bias and perplexity of a masked or causal language model, alone or against another one."""
    settings, trainer_options = settings_of(values)
    check_positive(values.limit, "limit", "a positive number of items")
    if values.limit is not None:
        settings.evaluation.limit = values.limit

    from lce.commands.tables import print_evaluation
    from lce.evaluation.evaluate import run_evaluate
    from lce.foundations.files import read_json
    from lce.training.trainer_options import check_machine, on_one_device

    check_machine(on_one_device(trainer_options))
    path = run_evaluate(settings, trainer_options, values.model, values.against)
    print_evaluation(read_json(path))
    print(path.with_suffix("") / "report.html")
    print(path)
