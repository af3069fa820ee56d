"""Results of features for the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from rich.markup import escape
from rich.table import Table

from lce.commands.check_table import print_checks
from lce.evaluation.site_edits import HELD_OUT
from lce.foundations.console import wide_console
from lce.foundations.labels import interval_text, label, number_text, p_text
from lce.metrics.forced_choice import Verdict

SNIPPET = 40
"""Characters of a snippet before its token, and after it."""


def print_features(rows: Iterable[Mapping[str, Any]]) -> None:
    """One row a feature: its side, what it does for the occupations of both, and its most activating text."""
    table = Table(title="selected features", title_justify="left")
    for heading in ("feature", "side", "male jobs", "n", "female jobs", "n", "most active on"):
        table.add_column(heading, justify="left" if heading in ("side", "most active on") else "right")
    for row in rows:
        snippet = next(iter(row.get("snippets", [])), None)
        text = "" if snippet is None else (
            escape(f"{snippet['before'][-SNIPPET:]}[{snippet['token'].strip()}]{snippet['after'][:SNIPPET]}")
        )  # fmt: skip
        sides = ((f"{row[f'{side}_activation']:.2f}", str(row[f"{side}_jobs"])) for side in ("male", "female"))
        table.add_row(str(row["feature"]), row["side"], *(cell for pair in sides for cell in pair), text)
    wide_console().print(table)


def print_feature_edits(result: dict[str, Any]) -> None:
    """The table of all edits, what the one that is kept does elsewhere, and the checks."""
    console = wide_console()
    if not result["edits"]:
        console.print(f"patches: {', '.join(result['patches'])}", soft_wrap=True, markup=False)
        return
    title = f"{result['model']} at {result['site']}: gap between occupations of men and of women, held out [nats]"
    table = Table(title=escape(title), title_justify="left")
    for heading in ("", "s, α", "features", "gap", "95 % interval", "closed", "perplexity", "n"):
        table.add_column(heading, justify="right" if heading else "left")
    gap = result["before"][HELD_OUT]
    perplexity = result["before"].get("perplexity", {}).get("value")
    unedited = (f"{gap['value']:.2f}", interval_text(gap["interval"]), "", number_text(perplexity), str(gap["n"]))
    table.add_row("unedited", "", "", *unedited)
    for row in result["edits"]:
        score, change = row["scores"][HELD_OUT], row["perplexity_change"]
        table.add_row(
            row["name"], f"{row['strength']:g}", str(row["count"]), f"{score['value']:z.2f}",
            interval_text(score["interval"]), number_text(row["closed"]["value"], "z.0%"),
            "–" if change is None else f"{change:+.1f} %", str(score["n"]),
            style="bold" if row["patch"] == result["patch"] else "",
        )  # fmt: skip
    console.print(table)
    _print_kept(result)
    print_checks(result)


def _print_kept(result: dict[str, Any]) -> None:
    """What the edit that is kept does to the other scores, and to the answers by occupation."""
    kept = next(row for row in result["edits"] if row["patch"] == result["patch"])
    console = wide_console()
    name = f"{kept['name']}, {kept['strength']:g}"
    table = Table(title=f"kept: {name}", title_justify="left")
    for heading in ("", "unedited", "edited", "n"):
        table.add_column(heading, justify="right" if heading else "left")
    for score, before in result["before"].items():
        if score in kept["scores"] and score != HELD_OUT:
            after = kept["scores"][score]["value"]
            table.add_row(label(score), number_text(before["value"]), number_text(after), f"{before['n']:,}")
    console.print(table)
    for control, row in kept["against"].items():
        p_value = row["tests"][0]["p_value"]
        console.print(f"gap less that with {control}: {row['value']:+.2f}, p {p_text(p_value)}", markup=False)
    for prompt in dict.fromkeys(row["prompt"] for row in result["occupations"]):
        found = [row["verdict"] for row in result["occupations"] if row["prompt"] == prompt]
        counts = ", ".join(f"{found.count(one)} {one}" for one in get_args(Verdict))
        console.print(f"forced choice, prompt {prompt}: {counts}", markup=False)
