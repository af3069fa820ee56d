"""A section of a study's report: a text, a table and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

VERDICTS = {True: "holds", False: "does not hold", None: "cannot be tested here"}
"""What is said of a claim that holds, does not, or has no cells."""


@dataclass(frozen=True)
class Section:
    """One part of the report; ``figures`` are names of `plots.figures`."""

    title: str
    text: str
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Sequence[str] = field(default_factory=list)


def percent(share: float) -> str:
    """A share, as people write it; empty where it is not known."""
    return "" if pd.isna(share) else f"{share:.0%}"


def size_text(k: float | str) -> str:
    """The size of a value-based selection, as people write it: of more than 1, it is a number of weights."""
    return "as the mask" if isinstance(k, str) else f"{k:,.0f}" if isinstance(k, int) or k > 1 else f"{k:.0%}"


def mean_std(row: Any, digits: int = 2) -> str:
    """A row of `over_seeds`, as people write it."""
    spread = "" if pd.isna(row["std"]) else f" ± {row['std']:.{digits}f}"
    return f"{row['mean']:.{digits}f}{spread}"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |"

    return [line(headings), line(["---"] * len(headings)), *map(line, rows)]
