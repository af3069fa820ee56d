"""Locks that one process at a time holds, over all processes that see a folder."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lce.foundations.atomic_files import cannot_write
from lce.foundations.errors import LceError

log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Time that a killed run's workers may take to end [s]."""


@contextmanager
def held(lock: Path, reason: str, patience: float | None = None) -> Iterator[None]:
    """Hold the file ``lock`` for the block.

    Args:
        reason: why it may have to wait, or to give up: what the other process does.
        patience: how long to wait for another process that holds it [s], -1 without an end; by default `PATIENCE`.

    Raises:
        LceError: another process still holds it after that time, or its folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(FileLock(lock, timeout=0))
            except Timeout:
                if patience != 0:
                    log.info("%s; waiting", reason)
                stack.enter_context(FileLock(lock, timeout=PATIENCE if patience is None else patience))
        except Timeout as error:
            raise LceError(reason) from error
        except OSError as error:
            raise cannot_write(lock.parent, error) from error
        yield
