"""Edits of directions in a study: one row a result, and their section."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lce.evaluation.direction_checks import PERCENTILE
from lce.foundations.labels import number_text
from lce.study.cells import Cell
from lce.study.report.results import Results
from lce.study.report.section import Section

ENDS = ("", "_low", "_high")
SPREAD = [f"{name}{end}" for name in ("taken", "moved") for end in ENDS]
NUMBERS = ["alpha", "layer", "n", *SPREAD, "separation", "directions", "random", "random_of_size"]


def edits_of(results: Results) -> pd.DataFrame:
    """edit → `NUMBERS`.

    ``taken`` is the share of |LALS| in the ``layer`` that the edit takes away, ``moved`` by how much it moves the log
    odds of the answers about ``n`` ambiguous pictures, ``random`` the percentile `PERCENTILE` of how far so many random
    ``directions`` of all seeds move them, and ``random_of_size`` the same where they change states as much.
    """
    rows = [
        _row(results, cell, result) for cell, result in results.of("directions").items() if cell.strategy is not None
    ]
    frame = pd.DataFrame(rows).reindex(columns=["edit", *NUMBERS])
    return frame.astype(dict.fromkeys(NUMBERS, float))


def _row(results: Results, cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    drawn = [
        row
        for other, found in results.of("random-directions").items()
        if replace(other, kind="directions", seed=None) == cell
        for row in found["directions"]
    ]
    random, of_size = ([abs(row["moved"]["value"]) for row in rows] for rows in (drawn, [r["scaled"] for r in drawn]))
    spread: dict[str, Any] = {}
    for name in ("taken", "moved"):
        score = result[name]
        values = (score["value"], *(score["interval"] or (None, None)))
        spread |= dict(zip((f"{name}{end}" for end in ENDS), values, strict=True))
    return {
        "edit": cell.strategy,
        "alpha": cell.alpha,
        "layer": result["layer"] + 1,
        "n": result["moved"]["n"],
        **spread,
        "separation": result["separation"],
        "directions": len(drawn),
        "random": np.percentile(random, PERCENTILE) if drawn else np.nan,
        "random_of_size": np.percentile(of_size, PERCENTILE) if drawn else np.nan,
    }


def section(results: Results) -> Section | None:
    """Edit × strength: what is taken away inside, how far the answers move, and what random directions do."""
    found = results.of("directions")
    if not found:
        return None
    rows = []
    for cell, result in found.items():
        if cell.strategy is None:
            separation = number_text(result["separation"]["value"])
            rows.append(["unedited", "", str(result["layer"] + 1), "", "", separation, "", ""])
    for row in edits_of(results).to_dict("records"):
        taken, moved = (_with_interval(row, name, form) for name, form in (("taken", "z.0%"), ("moved", "+.2f")))
        random = (
            f"{row['random']:.2f}, {row['random_of_size']:.2f} ({row['directions']:.0f})" if row["directions"] else ""
        )
        cells = [row["edit"], f"{row['alpha']:g}", f"{row['layer']:.0f}", taken, moved]
        rows.append([*cells, f"{row['separation']:.2f}", random, f"{row['n']:.0f}"])
    text = (
        "LALS says towards which group the states of a picture's tokens lean, by the texts that are nearest to them. "
        "The layer tells the groups apart best. Taken away is a share of |LALS| there; the log odds are those of the "
        "answers about pictures of neither group, or of all where there are none of these; the AUC is that by which "
        "LALS tells the groups apart. Of random directions, with their number in brackets: percentile "
        f"{PERCENTILE} of how far they move the log odds, with the same strength, and where they change states as much "
        "as the edit. Intervals are 95 % bootstrap intervals over pictures that belong together."
    )
    headings = ["edit", "α", "layer", "|LALS| taken away", "log odds moved", "AUC", "random directions", "n"]
    return Section("Directions: what is held inside, and the answers", text, headings, rows)


def _with_interval(row: dict[str, Any], name: str, form: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    shown = "" if pd.isna(low) else f" ({low:{form}} to {high:{form}})"
    return f"{row[name]:{form}}{shown}"
