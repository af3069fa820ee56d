"""Plan and progress of a study, for the terminal."""

from collections import Counter
from typing import Any

from rich.table import Table

from lce.foundations.console import wide_console
from lce.study.cell_files import CellFiles
from lce.study.cells import expand
from lce.study.settings import StudySettings
from lce.study.sweep import Status

SHOWN_FAILURES = 10


def print_plan(study: StudySettings, trainer_options: dict[str, Any]) -> None:
    """Every cell, and what is left to do."""
    from lce.study.cost import costs

    cells, files = expand(study), CellFiles(study, trainer_options)
    left = Counter(cell.kind for cell in cells if not files.path(cell).exists())
    for cell in cells:
        print(files.path(cell).stem, "" if not files.path(cell).exists() else "(done)")
    table = Table(title=f"{len(cells):,} cells, {sum(left.values()):,} of them left", title_justify="left")
    for heading in ("", "cells", "left", "seconds each", "left, in hours", "known from"):
        table.add_column(heading, justify="right" if heading not in ("", "known from") else "left")
    found = costs(study, files, cells)
    for kind, number in Counter(cell.kind for cell in cells).items():
        cost = found[kind]
        hours = f"{left[kind] * cost.seconds / 3600:.2f}"
        source = "cells that ran" if cost.is_measured else "arithmetic, roughly"
        table.add_row(kind, f"{number:,}", f"{left[kind]:,}", f"{cost.seconds:.1f}", hours, source)
    console = wide_console()
    console.print(table)
    total = sum(number * found[kind].seconds for kind, number in left.items()) / 3600
    console.print(f"{total:.2f} hours on one worker of {study.cpus_per_task:g} cores, {study.gpus_per_task:g} GPUs")


def print_status(found: Status) -> None:
    """How many cells are done, running, failed and left, by kind, and why some failed."""
    groups = {"done": found.done, "running": found.running, "failed": list(found.failed), "left": found.left}
    counts = {name: Counter(cell.kind for cell in cells) for name, cells in groups.items()}
    table = Table()
    table.add_column("")
    for name in groups:
        table.add_column(name, justify="right")
    kinds = list(dict.fromkeys(kind for count in counts.values() for kind in count))
    for kind in kinds:
        table.add_row(kind, *(f"{counts[name][kind]:,}" for name in groups))
    table.add_row("all", *(f"{len(cells):,}" for cells in groups.values()), style="bold")
    console = wide_console()
    console.print(table)
    for cell, reason in list(found.failed.items())[:SHOWN_FAILURES]:
        about = " ".join(str(value) for value in cell.known().values())
        console.print(f"failed: {about}: {reason}", soft_wrap=True, highlight=False)
    if len(found.failed) > SHOWN_FAILURES:
        console.print(f"… and {len(found.failed) - SHOWN_FAILURES:,} more")
