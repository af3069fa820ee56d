"""Edits of attention heads in a study: one row a result, means over seeds, and their section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lce.evaluation.head_checks import LEAST_BEYOND, LEAST_REDUCED, MOST_ACCURACY_LOST, PERCENTILE, keeps_accuracy
from lce.metrics.group_association import ACCURACY, CORRECTED_V, LEAN
from lce.study.cells import Cell
from lce.study.report.results import Results
from lce.study.report.section import Section

WAY = ["attribute", "size", "edit"]
"""Columns that tell one edit from another, seeds apart."""
ENDS = ("", "_low", "_high")
SPREAD = [f"{name}{end}" for name in ("lean", "corrected", "taken", "accuracy", "random") for end in ENDS]
NUMBERS = ["n", "labelled", "lean_before", "corrected_before", *SPREAD, "sets", "below"]
LEAST_SETS = round(1 / (1 - LEAST_BEYOND)) - 1
"""Random sets of which all have to do less for a permutation test to say that an edit does more by its heads."""
BAND = (5, 95)
"""Percentiles of the random sets that tables and figures show."""


def head_edits(results: Results) -> pd.DataFrame:
    """`WAY`, seed → `NUMBERS`; empty where there are none.

    ``n`` pictures show people of either group, and ``labelled`` ones have a class. ``lean`` and ``corrected`` V are
    those of the edited model, ``accuracy`` is what the edit changes of it, ``taken`` the share of the lean that it
    takes away, each with the ends of its interval. Of the random ``sets``, ``random`` is the median of that share with
    the ends of `BAND`, and ``below`` is the share of the sets that take less away.
    """
    rows = [
        _row(results, cell, result)
        for cell, result in results.of("heads").items()
        if cell.count is not None and "available" not in result
    ]
    frame = pd.DataFrame(rows).reindex(columns=[*WAY, "seed", *NUMBERS])
    return frame.astype(dict.fromkeys(NUMBERS, float))


def _row(results: Results, cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    scores, differences, taken = result["scores"], result["differences"], result["reduced"][LEAN]
    sets = results.cells.get(replace(cell, kind="random-heads"), {"sets": []})["sets"]
    by_chance = [row["reduced"][LEAN] for row in sets]
    low, middle, high = np.percentile(by_chance, (BAND[0], 50, BAND[1])) if sets else [np.nan] * 3
    return {
        "attribute": cell.attribute,
        "size": cell.count,
        "edit": cell.strategy,
        "seed": cell.seed,
        "n": taken["n"],
        "labelled": differences[ACCURACY]["n"],
        "lean_before": scores[LEAN]["value"] - differences[LEAN]["value"],
        "corrected_before": scores[CORRECTED_V]["value"] - differences[CORRECTED_V]["value"],
        **_spread("lean", scores[LEAN]),
        **_spread("corrected", scores[CORRECTED_V]),
        **_spread("taken", taken),
        **_spread("accuracy", differences[ACCURACY]),
        "random": middle,
        "random_low": low,
        "random_high": high,
        "sets": len(sets),
        "below": float(np.mean([share < taken["value"] for share in by_chance])) if sets else np.nan,
    }


def _spread(name: str, score: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip((f"{name}{end}" for end in ENDS), (score["value"], *(score["interval"] or [])), strict=False))


def means(frame: pd.DataFrame) -> pd.DataFrame:
    """`WAY` → means over seeds, of the ends of intervals too, and the number of ``results``."""
    named: dict[str, Any] = {name: (name, "mean") for name in NUMBERS}
    return frame.groupby(WAY, sort=False).agg(**named, results=("seed", "size")).reset_index()


def unedited(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Attribute → what was measured of the unedited model, a seed each."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell, result in results.of("heads").items():
        if cell.count is None:
            found.setdefault(str(cell.attribute), []).append(result)
    return found


def section(results: Results) -> Section | None:
    """Attribute × size × edit: what is taken away, at which cost, and what random sets do."""
    found, before = means(head_edits(results)), unedited(results)
    if not len(found) and not before:
        return None
    rows = []
    for attribute in results.study.heads.attributes:
        rows += _unedited_rows(attribute, before.get(attribute, []))
        rows += [_cells(row) for row in found[found["attribute"] == attribute].to_dict("records")]
    headings = [
        "attribute", "heads", "edit", "lean", "lean taken away", "corrected V", "accuracy", "random sets take away",
        "percentile among them", "n",
    ]  # fmt: skip
    return Section("Attention heads: bias before and after", _text(results, found, before), headings, rows, ["heads"])


def _unedited_rows(attribute: str, measured: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    if not measured:
        return []
    lean, corrected, accuracy = ([row["scores"][name] for row in measured] for name in (LEAN, CORRECTED_V, ACCURACY))
    null = {name: _mean([row["null"][name] for row in measured]) for name in (LEAN, CORRECTED_V)}
    shown = [_with_interval(_means(scores), form) for scores, form in ((lean, ".3f"), (corrected, ".3f"),
                                                                       (accuracy, ".1%"))]  # fmt: skip
    n = f"{lean[0]['n']}, {accuracy[0]['n']} × {len(measured)}"
    return [
        [attribute, "", "unedited", shown[0], "", shown[1], shown[2], "", "", n],
        [attribute, "", f"percentile {PERCENTILE} of the null", f"{null[LEAN]:.3f}", "", f"{null[CORRECTED_V]:.3f}",
         "", "", "", ""],
    ]  # fmt: skip


def _cells(row: Mapping[str, Any]) -> list[str]:
    lean, corrected, taken, accuracy, random = (
        [row[f"{name}{end}"] for end in ENDS] for name in ("lean", "corrected", "taken", "accuracy", "random")
    )
    has_sets = row["sets"] > 0
    return [
        row["attribute"],
        f"{row['size']:.0f}",
        row["edit"],
        _with_interval(lean, "z.3f"),
        _with_interval(taken, "z.0%"),
        _with_interval(corrected, ".3f"),
        _with_interval([100 * change for change in accuracy], "+z.1f"),
        _with_interval(random, "z.0%") if has_sets else "",
        f"{row['below']:.0%} of {row['sets']:.0f}" if has_sets else "",
        f"{row['n']:.0f}, {row['labelled']:.0f} × {row['results']}",
    ]


def _means(scores: Sequence[Mapping[str, Any]]) -> list[float]:
    """The mean of values, and of the ends of their intervals."""
    found = [_spread("", score) for score in scores]
    return [_mean([row.get(end) for row in found]) for end in ENDS]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _with_interval(estimate: Sequence[float], form: str) -> str:
    """A value, and the ends of its interval if it has one."""
    if pd.isna(estimate[0]):
        return ""
    ends = [format(number, form) for number in estimate[1:] if not pd.isna(number)]
    value = format(estimate[0], form)
    return f"{value} ({' to '.join(ends)})" if ends else value


def _text(results: Results, found: pd.DataFrame, before: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    views = results.study.heads.views
    text = (
        "The lean is the probability of the classes that lean towards an attribute's first group, on pictures of that "
        "group less on pictures of the second; these classes are those that the study names, or else those that lean "
        "so for the other half of the people. Cramér's V between group and predicted class is bias-corrected. The "
        "share taken away is 1 − |lean after| / |lean before|: below 0, the lean grows. Accuracy is that of the "
        "unedited model, and below it the change in percentage points. The heads are chosen without labels and without "
        "these measures, but on the same pictures. n: pictures of people of either group, and pictures with a class, "
        f"on which accuracy is measured, × seeds{f'; {views} views of each count as one' if views > 1 else ''}. "
        "Intervals are 95 % bootstrap intervals over blocks, paired with the unedited model: all "
        "pictures of a person, or, where pictures are matched, all that are alike but for the group; over seeds, the "
        "means of their ends. Resampling lifts V, so that its intervals lie too high. Random sets have as many heads "
        f"of the same layers: shown are the median, and percentiles {BAND[0]} and {BAND[1]} in brackets; the "
        "percentile is the share of them that take less of the lean away. Of few heads there are few such sets, and no "
        "percentile is finer than one of them."
    )
    for attribute, measured in before.items():
        order = measured[0]["order"][: max(results.study.heads.sizes)]
        heads = ", ".join(f"{head['layer'] + 1}.{head['head']}" for head in order)
        text += f" By {attribute}, there are {measured[0]['blocks']} blocks; the heads are chosen in this order "
        text += f"(layer, from 1, and head, from 0): {heads or 'none'}"
        text += ", by the first seed." if len(measured) > 1 else "."
        if sizes := _unavailable(results, attribute):
            text += f" Fewer than {sizes[0]} heads are described by a word for one of its groups."
        lean, null = (_mean(values) for values in ([row["scores"][LEAN]["value"] for row in measured],
                                                   [row["null"][LEAN] for row in measured]))  # fmt: skip
        if lean <= null:
            text += (
                f" The lean by {attribute} does not exceed percentile {PERCENTILE} of its null, so that shares of it "
                "are shares of what may be noise."
            )
    return text + _counted(found)


def _unavailable(results: Results, attribute: str) -> list[int]:
    """The sizes for which too few heads are described by the attribute, with one seed at least."""
    cells = [cell for cell, result in results.of("heads").items() if "available" in result]
    return sorted({int(cell.count or 0) for cell in cells if cell.attribute == attribute})


def _counted(found: pd.DataFrame) -> str:
    """How many edits do what an audit asks for, and how many more than random sets do."""
    if not len(found):
        return ""
    does = found[(found["taken"] >= LEAST_REDUCED) & keeps_accuracy(found["accuracy"])]
    by_chance = (1 + (1 - does["below"]) * does["sets"]) / (1 + does["sets"])
    beyond = does[by_chance <= 1 - LEAST_BEYOND]
    return (
        f" Of {len(found)} edits, {len(does)} take at least {LEAST_REDUCED:.0%} of the lean away and at most "
        f"{100 * MOST_ACCURACY_LOST:g} point of accuracy; of these, {len(beyond)} do more than {LEAST_BEYOND:.0%} of "
        f"their random sets, of which there have to be {LEAST_SETS} for that. By chance alone, one edit in twenty "
        "would. Larger selections contain the smaller ones, so rows are no independent trials, and the best of them "
        "flatters itself."
    )
