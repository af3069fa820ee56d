"""Making a cell: its result is one JSON file, written when it is whole.

A cell that fails leaves its reason in a file beside it, and does not stop the next one.
"""

from __future__ import annotations

import logging
import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lce.errors import LceError
from lce.experiments.makers import MAKERS
from lce.experiments.study import Cell
from lce.experiments.workplace import Workplace
from lce.files import replaced_file, write_json
from lce.paths import FAILED, RUNNING

log = logging.getLogger(__name__)


def make(place: Workplace, cell: Cell) -> None:
    """Make ``cell`` unless it exists; leave its result, or the reason why there is none."""
    path = place.path(cell)
    if path.exists():
        return
    failed = path.with_suffix(FAILED)
    started = time.perf_counter()
    with _marked(path.with_suffix(RUNNING)):
        try:
            result = MAKERS[cell.kind](place, cell)
        except Exception as error:
            log.warning("%s failed: %s", path.stem, error)
            trace = "" if isinstance(error, LceError) else traceback.format_exc()
            write_failure(failed, f"{type(error).__name__}: {error}", trace)
            return
        seconds = round(time.perf_counter() - started, 2)
        write_json(path, {"cell": cell.known(), **result, "seconds": seconds, "machine": platform.node()})
    failed.unlink(missing_ok=True)


@contextmanager
def _marked(path: Path) -> Iterator[None]:
    """A file that says that a cell is under way, for the while."""
    write_json(path, {"machine": platform.node(), "process": os.getpid()})
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def write_failure(path: Path, reason: str, trace: str = "") -> None:
    """Write why there is no result; the first line is the reason."""
    with replaced_file(path) as temporary:
        temporary.write_text(f"{' '.join(reason.split())}\n{trace}", encoding="utf-8")
