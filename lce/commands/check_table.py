"""The checks of an experiment, and its patch, for the terminal."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from lce.foundations.console import wide_console
from lce.foundations.labels import interval_text, number_text


def print_checks(result: dict[str, Any]) -> None:
    """One row a check: its value, interval and bar, and whether it holds; then the file of the patch."""
    console = wide_console()
    table = Table(title="checks", title_justify="left")
    for heading in ("", "", "value", "interval", "bar", "holds"):
        table.add_column(heading)
    for name, check in result["checks"].items():
        value, ends = number_text(check["value"]), interval_text(check["interval"])
        table.add_row(name, escape(check["what"]), value, ends, check["bar"], "yes" if check["holds"] else "no")
    console.print(table)
    console.print(f"patch: {result['patch']}", soft_wrap=True, markup=False)
