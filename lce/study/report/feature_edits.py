"""Edits of features and directions in a study: one row a result, means over seeds and draws, and their section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lce.evaluation.site_edits import HELD_OUT
from lce.study.cells import DIRECTION, Cell
from lce.study.report.results import Results
from lce.study.report.section import Section

CONTROLS = {"uninformed": "random features", "matched": "matched features"}
WAY = ["rule", "count", "strength"]
"""Columns that tell one edit from another; its controls share them."""
MEASURES = ("gap", "closed", "rise")
"""The gap [nats], the share of it that is closed, and the share by which the perplexity rises."""
SPREAD = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
NUMBERS = ["count", "strength", "draw", "features", "n", *SPREAD, "perplexity"]
CHEAP = 0.05
"""Rise of the perplexity up to which edits are compared in the text."""


def edits_of(results: Results) -> pd.DataFrame:
    """rule, count, strength, control, draw, seed, kind → features, n, perplexity, and `MEASURES` with their intervals.

    ``features`` is how many are edited, which the rule counts decides itself; directions have none.
    """
    rows = [_row(cell, result) for cell, result in results.of("features").items() if cell.localization]
    frame = pd.DataFrame(rows).reindex(columns=["kind", "rule", "control", "seed", *NUMBERS])
    return frame.astype(dict.fromkeys(NUMBERS, float))


def _row(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    is_direction = str(cell.localization).startswith(DIRECTION)
    shown = {"gap": result["scores"][HELD_OUT], "closed": result["closed"], "rise": result["costs"]["perplexity"]}
    spread: dict[str, Any] = {}
    for name, score in shown.items():
        low, high = score["interval"] or (None, None)
        spread |= {name: score["value"], f"{name}_low": low, f"{name}_high": high}
    return {
        "kind": CONTROLS.get(str(cell.control), str(cell.localization) if is_direction else f"by {cell.localization}"),
        "rule": cell.localization,
        "count": cell.count,
        "strength": cell.alpha,
        "control": cell.control,
        "draw": cell.draw,
        "seed": cell.seed,
        "features": None if is_direction else result["selected"],
        "n": shown["gap"]["n"],
        **spread,
        "perplexity": result["scores"]["perplexity"]["value"],
    }


def means(frame: pd.DataFrame) -> pd.DataFrame:
    """kind and `WAY` → means over seeds and draws, of the ends of intervals too, and the number of ``results``."""
    by = ["kind", *WAY, "control"]
    return frame.groupby(by, dropna=False, sort=False).agg(
        **{name: (name, "mean") for name in ("features", "n", "perplexity", *SPREAD)}, results=("seed", "size")
    ).reset_index()  # fmt: skip


def unedited(results: Results) -> dict[str, Any] | None:
    """The scores of the unedited model; None where they have not been measured yet."""
    found = results.cells.get(Cell("features"))
    return None if found is None else found["scores"]


def is_direction(rule: str) -> bool:
    return rule.startswith(DIRECTION)


def section(results: Results) -> Section | None:
    """Gap against perplexity, and the number of features."""
    frame = edits_of(results)
    if not len(frame):
        return None
    rows, before = [], unedited(results)
    if before is not None:
        gap = before[HELD_OUT]
        shown = _with_interval([gap["value"], *(gap["interval"] or [])])
        rows.append(["unedited", "", "", f"{gap['n']} × 1", shown, "", f"{before['perplexity']['value']:.2f}", "", ""])
    for _, part in means(frame).groupby(WAY, dropna=False, sort=False):
        by_control = {row["control"]: row for row in part.to_dict("records")}
        rows.append(_cells(part.iloc[0].to_dict(), by_control))
    headings = [
        "edit", "features", "strength", "n", "gap [nats]", "share closed", "perplexity", "closed by random features",
        "by matched features",
    ]  # fmt: skip
    return Section("Features: gap against perplexity", _text(frame), headings, rows, ["features", "features-number"])


def _cells(way: dict[str, Any], by_control: dict[str, dict[str, Any]]) -> list[str]:
    """A row of the table: the edit itself, where it was measured, and what its controls do."""
    rule, own = way["rule"], by_control.get("none")
    symbol = "α" if is_direction(rule) else "s"
    number = way["features"]
    cells = [
        rule if is_direction(rule) else f"by {rule}",
        "" if pd.isna(number) else f"{number:.0f}",
        f"{symbol} = {way['strength']:g}".replace("-", "−"),
    ]
    if own is None:
        cells += [""] * 4
    else:
        gap, closed, rise = ([own[f"{name}{end}"] for end in ("", "_low", "_high")] for name in MEASURES)
        cells += [f"{own['n']:.0f} × {own['results']}", _with_interval(gap)]
        cells += [_with_interval(closed, "z.0%"), _with_interval(rise, "+z.1%")]
    for control in CONTROLS:
        row = by_control.get(control)
        cells.append("" if row is None else f"{row['closed']:z.0%} ({row['results']})")
    return cells


def _with_interval(estimate: Sequence[float], form: str = "z.2f") -> str:
    """A value, and the ends of its interval if it has one."""
    ends = [format(number, form) for number in estimate[1:] if not pd.isna(number)]
    value = format(estimate[0], form)
    return f"{value} ({' to '.join(ends)})" if ends else value


def _text(frame: pd.DataFrame) -> str:
    text = (
        "The gap in log P(he) − log P(she) between the occupations of men and of women, in sentences and on "
        "occupations that no edit was chosen by: each half of the occupations is measured under the edit that the "
        "other half chose, and each seed makes other halves. The perplexity is measured under the edit that all "
        "occupations chose, whose features are counted here. n: occupations × results over seeds. Intervals are 95 % "
        "bootstrap intervals over occupations and sentences, paired with the unedited model; over seeds and draws, "
        "the means of their ends. s multiplies the selected features, α is the strength with which a direction is "
        "taken out. Random and matched features are as many others by chance, matched ones of nearly the same mean "
        "activations, with the number of their results in brackets. The first figure shows all kinds of edits, its "
        "lines starting at the unedited model, with the number of features at their ends; the second shows the gap "
        "against that number, with the range of all draws for random and matched features."
    )
    for control, name in CONTROLS.items():
        drawn = frame[frame["control"] == control]
        if len(drawn):
            text += f" Of {len(drawn)} results of {name}, none moves the gap by more than {_most(drawn):.0%}."
    informed = means(frame[frame["control"] == "none"])
    cheap = informed[informed["rise"] <= CHEAP].dropna(subset=["gap"])
    if len(cheap):
        nearest = cheap.loc[cheap["gap"].abs().groupby(cheap["kind"], sort=False).idxmin()]
        best = "; ".join(f"{row['kind']} {row['gap']:z.2f}" for row in nearest.to_dict("records"))
        text += (
            f" The smallest gaps that are left where the perplexity rises by {CHEAP:.0%} at most: {best}. They are the "
            "best of several strengths and numbers, which flatters them."
        )
    return text


def _most(frame: pd.DataFrame) -> float:
    return float(frame["closed"].abs().max())


def kinds_of(frame: pd.DataFrame) -> Sequence[str]:
    """The kinds of edits there are, features first, controls last."""
    found = list(dict.fromkeys(frame["kind"]))
    return sorted(found, key=lambda kind: (kind in CONTROLS.values(), kind.startswith(DIRECTION)))
