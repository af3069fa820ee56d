"""Results of attention heads for the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from lce.commands.check_table import print_checks
from lce.foundations.console import wide_console
from lce.foundations.labels import interval_text, number_text
from lce.metrics.group_association import ACCURACY, CORRECTED_V, LEAN, V

TEXTS = 3
"""Texts of a head that its row shows."""


def print_heads(rows: Iterable[Mapping[str, Any]]) -> None:
    """One row a head: its score, and the first texts that describe it."""
    table = Table(title="selected heads", title_justify="left")
    for heading in ("layer", "head", "score", "rank", "what it writes"):
        table.add_column(heading, justify="left" if heading == "what it writes" else "right")
    for row in rows:
        texts = "; ".join(f"{text['text']} ({text['share']:.0%})" for text in row["texts"][:TEXTS])
        table.add_row(str(row["layer"] + 1), str(row["head"]), f"{row['score']:.3f}", str(row["rank"]), escape(texts))
    wide_console().print(table)


def print_head_edits(result: dict[str, Any]) -> None:
    """The selected heads, the bias before and after each edit, random sets, and the checks."""
    console = wide_console()
    print_heads(result["selected"])
    if "before" not in result:
        console.print(f"patch: {result['patch']}", soft_wrap=True, markup=False)
        return
    before = result["before"]
    shown = f"{before['pictures']:,} pictures in {before['views']:,} views"
    title = f"{result['name']}: bias by {result['attribute']}, {shown}"
    table = Table(title=escape(title), title_justify="left")
    for heading in ("", "lean", "95 % interval", "taken away", "V", "corrected V", "accuracy", "MaxSkew@k", "n"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("unedited", *_cells(before, None))
    null = (number_text(before["null"][name], ".3f") for name in (LEAN, V, CORRECTED_V))
    table.add_row("percentile 99 of the null", next(null), "", "", *null, "", "", "")
    for number, row in enumerate(result["edits"]):
        name = f"{row['edit']}, {'first-order' if row['is_first_order'] else 'true'}"
        style = "" if number else "bold"
        table.add_row(name, *_cells(row, row["reduced"][LEAN]["value"]), style=style)
    for is_first_order in (False, True):
        rows = [row for row in result["random"] if row["is_first_order"] == is_first_order]
        if rows:
            means = {name: sum(row["values"][name] for row in rows) / len(rows) for name in (LEAN, V, CORRECTED_V)}
            accuracy = sum(row["values"][ACCURACY] for row in rows) / len(rows)
            taken = sum(row["reduced"][LEAN] for row in rows) / len(rows)
            name = f"{len(rows)} random sets, {'first-order' if is_first_order else 'true'}, mean"
            numbers = (number_text(means[one], ".3f") for one in (LEAN, V, CORRECTED_V))
            table.add_row(name, next(numbers), "", f"{taken:z.0%}", *numbers, number_text(accuracy, ".3f"), "", "")
    console.print(table)
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in result["shares"].items())
    console.print(
        f"the spread of {result['attribute']} over pictures is written by: {shares}", soft_wrap=True, markup=False
    )
    print_checks(result)


def _cells(row: Mapping[str, Any], taken: float | None) -> list[str]:
    """What follows the name in the row of a model."""
    scores = row["scores"]
    lean, skew = scores[LEAN], row["max_skew"]
    numbers = [number_text(score["value"], ".3f") for score in (scores[V], scores[CORRECTED_V], scores[ACCURACY], skew)]
    share = "" if taken is None else f"{taken:z.0%}"
    return [number_text(lean["value"], ".3f"), interval_text(lean["interval"]), share, *numbers, str(lean["n"])]
