"""What a patch says of itself, made fit for people: it comes from somebody else, so nothing in it is trusted."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lce.foundations.labels import label, number_text
from lce.patch.format import Patch
from lce.patch.record import as_float32

LONGEST = 300
LARGEST = 1e15


@dataclass(frozen=True)
class ParameterRow:
    """One changed parameter: how many weights of it, their share of it, and the mean size of their steps."""

    name: str
    count: int
    share: float
    step: float | None


def plain(value: Any) -> str:
    """One line without control characters, and not too long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def provenance_rows(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """Where a patch comes from, without its scores."""
    return [(plain(key), plain(value)) for key, value in provenance.items() if key != "scores"]


def score_rows(provenance: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Score, before and after the edit, as far as the patch knows."""
    scores = provenance.get("scores")
    if not isinstance(scores, dict):
        return []
    return [
        (label(plain(name)), _number(row.get("before")), _number(row.get("after")))
        for name, row in scores.items()
        if isinstance(row, dict)
    ]


def _number(value: Any) -> str:
    is_number = isinstance(value, int | float) and -LARGEST < value < LARGEST
    return number_text(value if is_number else None)


def parameter_rows(patch: Patch) -> Iterable[ParameterRow]:
    """Every changed parameter, in order."""
    for name, change in patch.changes.items():
        about = patch.parameters[name]
        step = None
        if change.old is not None:
            step = float(np.abs(as_float32(change.new, about.dtype) - as_float32(change.old, about.dtype)).mean())
        yield ParameterRow(name, about.count, about.count / about.size, step)


def describe(patch: Patch, size: int) -> str:
    """A summary for the terminal; ``size`` is the file's, in bytes."""
    total = sum(parameter.size for parameter in patch.parameters.values())
    can = ["be reverted"] * patch.has_old + ["be scaled to another α"] * patch.has_full
    lines = [
        f"{patch.count:,} weights in {len(patch.parameters)} parameters "
        f"({patch.count / total:.3%} of them), {size / 1024:,.0f} KiB, {size / patch.count:.1f} bytes a weight",
        f"can {' and '.join(can)}" if can else "cannot be reverted or scaled: made without the values for it",
        f"base fingerprint {patch.base_fingerprint}",
        *(f"{key}: {value}" for key, value in provenance_rows(patch.provenance)),
        *(f"{name}: {before} → {after}" for name, before, after in score_rows(patch.provenance)),
        "",
        f"{'parameter':<60} {'changed':>11} {'share':>8} {'mean |Δ|':>10}",
    ]
    for row in parameter_rows(patch):
        step = "–" if row.step is None else f"{row.step:.2e}"
        lines.append(f"{row.name:<60} {row.count:>11,} {row.share:>8.3%} {step:>10}")
    return "\n".join(lines)
