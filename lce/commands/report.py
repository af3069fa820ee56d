"""`lce report`: the report of a study, or several studies side by side."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lce.commands.arguments import Arguments
from lce.foundations.errors import LceError


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="+", help="folder of a study: the `experiment` of its configuration")
    parser.add_argument("--out", type=str | None, help="folder for the comparison of several studies")


ARGUMENTS = Arguments(own=_add)


def report(values: Namespace) -> None:
    """Write the report of a study: figures, tables, and which of the paper's claims hold; or compare studies."""
    runs = [Path(run) for run in values.runs]
    if (len(runs) > 1) != (values.out is not None):
        raise LceError(
            "--out: several studies that are compared need it, and one study's report has a place of its own"
        )
    try:
        from lce.study.report.comparison import write_comparison
        from lce.study.report.report import write_report
    except ModuleNotFoundError as error:
        raise LceError(f"lce report: needs {error.name}, which `pip install 'lce[study]'` brings") from error
    print(write_report(runs[0]) if len(runs) == 1 else write_comparison(runs, Path(values.out)))
