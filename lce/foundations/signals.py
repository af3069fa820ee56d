"""Being told to stop: SIGTERM and SIGINT end a command at once, in order, with the status that shells expect."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 20.0
"""Time in which a stopped command can tidy up; schedulers kill after some 30 [s]."""


class Stopped(BaseException):
    """Raised in the main thread when SIGTERM or SIGINT comes, so that Lightning, too, only passes it on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        return 128 + self.number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}; the same command resumes from here"


@contextmanager
def stopping() -> Iterator[list[Stopped]]:
    """For the block, SIGTERM and SIGINT raise `Stopped`; gives the list of those that came.

    A second signal ends the process where it is, and so does a first one that some library has swallowed: whatever lce
    writes is safe from that. A signal that is ignored (by nohup, say) stays so.
    """
    came: list[Stopped] = []
    watches: list[threading.Timer] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if came or os.getpid() != process:  # a second signal, or one for a forked process
            os._exit(128 + number)
        came.append(Stopped(number))
        watches.append(threading.Timer(PATIENCE, end, came))
        watches[0].daemon = True
        watches[0].start()
        raise came[0]

    def end(stopped: Stopped) -> None:
        print(f"lce: {stopped}", file=sys.stderr, flush=True)
        os._exit(stopped.status)

    with handlers_kept():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop)
        try:
            yield came
        finally:
            for watch in watches:
                watch.cancel()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Puts what answers SIGTERM and SIGINT back after the block: libraries put their own there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python
                signal.signal(number, handler)
