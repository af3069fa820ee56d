"""Results of directions for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from lce.commands.check_table import print_checks
from lce.foundations.console import wide_console
from lce.foundations.labels import interval_text, number_text


def print_layers(rows: Sequence[dict[str, Any]], layer: int) -> None:
    """One row a layer: how well the groups are told apart there; the selected one stands out."""
    table = Table(title="layers", title_justify="left")
    for heading in ("layer", "area under the curve"):
        table.add_column(heading, justify="right")
    for row in rows:
        is_chosen = row["layer"] == layer
        table.add_row(str(row["layer"] + 1), number_text(row["separation"]), style="bold" if is_chosen else "")
    wide_console().print(table)


def print_direction_edits(result: dict[str, Any]) -> None:
    """What the model leans towards and says, before and after each edit, random directions, classes and checks."""
    console = wide_console()
    if "before" not in result:
        console.print(f"patch: {result['patch']}", soft_wrap=True, markup=False)
        return
    one, other = result["groups"]
    where = f"{result['attribute']} in layer {result['layer'] + 1}, {result['counts']['shown']} pictures"
    table = Table(title=escape(f"{result['name']}: {where}"), title_justify="left")
    odds = ("log odds", "moved", "95 % interval")
    for heading in ("", "|LALS|", f"{one} − {other}", "AUC", *odds, "class named", "perplexity"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("unedited", *_cells(result["before"]))
    for number, row in enumerate(result["edits"]):
        table.add_row(row["edit"], *_cells(row), style="" if number else "bold")
    if result["random"]:
        about = result["checks"]["L3"]["random"]
        name = f"{about['n']} random directions, percentile {about['percentile']}"
        for how, key in ((name, "same_strength"), ("the same, changing as much", "same_size")):
            table.add_row(how, "", "", "", "", number_text(about[key]["moved"]), "", "", "")
    console.print(table)
    _print_classes(result)
    if result["colours"]:
        _print_colours(result)
    print_checks(result)


def _cells(row: dict[str, Any]) -> list[str]:
    names = ("leaning", "gap", "separation", "odds")
    moved = row.get("moved")
    shift = [number_text(moved["value"], "+.2f"), interval_text(moved["interval"])] if moved else ["", ""]
    costs = [number_text(row["class_named"]["value"], ".3f"), number_text(row["perplexity"]["value"])]
    return [*(number_text(row[name]["value"]) for name in names), *shift, *costs]


def _print_classes(result: dict[str, Any]) -> None:
    """Pictures of neither group, class by class: what the model holds inside, and what it says."""
    one, other = result["groups"]
    table = Table(title=f"{result['ambiguous']}, by class", title_justify="left")
    says = (f"says {one}", f"says {other}")
    for heading in ("", "LALS", "regime", "log odds", "after", *says, "n", "answer parts"):
        table.add_column(heading, justify="left" if heading in ("", "regime") else "right")
    for row in sorted(result["classes"], key=lambda row: -row["leaning"]):
        before, after = row["before"], row["after"]
        said = [f"{before['said'][name]} → {after['said'][name]}" for name in (one, other)]
        odds = [number_text(when["odds"]) for when in (before, after)]
        parts = "yes" if row["parts"] else ""
        table.add_row(row["class"], number_text(row["leaning"]), row["regime"], *odds, *said, str(row["n"]), parts)
    wide_console().print(table)


def _print_colours(result: dict[str, Any]) -> None:
    table = Table(title="what the colour of a garment changes", title_justify="left")
    for heading in ("", "LALS", "95 % interval", "p", "log odds", "95 % interval", "p", "n"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in result["colours"]:
        cells = []
        for name in ("leaning", "odds"):
            ends = interval_text(row[name]["interval"])
            cells += [number_text(row[name]["value"], "+.3f"), ends, number_text(row[name]["p_value"], ".4f")]
        table.add_row(row["colour"], *cells, str(row["n"]))
    wide_console().print(table)
