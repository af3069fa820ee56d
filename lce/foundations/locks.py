"""Locks that one process at a time holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lce.foundations.atomic_files import log
from lce.foundations.errors import LceError

PATIENCE = 20.0
"""Time that a killed run's workers may take to end [s]."""


@contextmanager
def held(lock: Path, reason: str, patience: float | None = None) -> Iterator[None]:
    """Hold the file ``lock`` for the block.

    Args:
        reason: why there may be waiting, and in the end a refusal.
        patience: how long another process that holds it is waited for [s], -1 for as long as it takes; by default
            `PATIENCE`.

    Raises:
        LceError: another process holds it all the time.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(lock, timeout=0))
        except Timeout:
            if patience != 0:
                log.info("%s; waiting", reason)
            try:
                stack.enter_context(FileLock(lock, timeout=PATIENCE if patience is None else patience))
            except Timeout as error:
                raise LceError(reason) from error
        yield
