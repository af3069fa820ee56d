"""Making a cell: its result is one JSON file, written when it is whole.

A cell that fails leaves its reason in a file beside it, and does not stop the next one.
"""

import logging
import os
import platform
import time
import traceback

import torch

from lce.foundations.errors import LceError
from lce.foundations.files import read_json, write_json
from lce.foundations.paths import FAILED, RUNNING
from lce.study.cell_files import write_failure
from lce.study.cell_kinds import MAKERS
from lce.study.cells import Cell
from lce.study.worker_cache import WorkerCache

log = logging.getLogger(__name__)

MOST_DEATHS = 2
"""So many workers may die making a cell, killed for memory, say, before it counts as failed and the next is made."""


def make(cache: WorkerCache, cell: Cell) -> None:
    """Make ``cell`` unless it exists, or failed in this sweep; leave its result, or the reason why there is none."""
    path = cache.path(cell)
    mark, failed = path.with_suffix(RUNNING), path.with_suffix(FAILED)
    if path.exists() or failed.exists():
        return
    deaths = read_json(mark)["deaths"] + 1 if mark.exists() else 0
    try:
        if deaths == MOST_DEATHS:
            raise LceError(f"{deaths} workers died while they made it")
        write_json(mark, {"machine": platform.node(), "process": os.getpid(), "deaths": deaths})
        started = time.perf_counter()
        result = MAKERS[cell.kind](cache, cell)
        seconds = round(time.perf_counter() - started, 2)
        write_json(path, {"cell": cell.known(), **result, "seconds": seconds, "device": _device()})
    except Exception as error:
        log.warning("%s failed: %s", path.stem, error)
        trace = "" if isinstance(error, LceError) else traceback.format_exc()
        write_failure(failed, f"{type(error).__name__}: {error}", trace)
    mark.unlink(missing_ok=True)


def _device() -> str:
    """The machine, and its GPU if this process has been given one."""
    return ", ".join([platform.node(), *([torch.cuda.get_device_name()] if torch.cuda.is_available() else [])])
