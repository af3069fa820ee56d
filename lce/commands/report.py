"""`lce report`: the report of a study."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lce.commands.arguments import Arguments
from lce.foundations.errors import LceError


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="folder of a study: the `experiment` of its configuration")


ARGUMENTS = Arguments(own=_add)


def report(values: Namespace) -> None:
    """Write the report of a study: figures, tables, and which of the paper's claims hold."""
    try:
        from lce.study.report.report import write_report
    except ModuleNotFoundError as error:
        raise LceError(f"lce report: needs {error.name}, which `pip install 'lce[study]'` brings") from error
    print(write_report(Path(values.run)))
