"""Stopping on SIGTERM and SIGINT: a command ends at once and cleanly, with the exit status that shells expect."""

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
"""Time that a stopped command has to clean up [s]; schedulers kill it after about 30 s."""


class Stopped(BaseException):
    """Raised in the main thread by SIGTERM and SIGINT; Lightning passes it on, other than KeyboardInterrupt."""

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
    """Has SIGTERM and SIGINT raise `Stopped` in the block; gives the list of those that came.

    A second signal ends the process at once, and so does a first one that comes in a destructor, which swallows it, or
    that a library has swallowed, after `PATIENCE`: files that lce writes are safe from that. A signal that was ignored
    before, by nohup for example, stays ignored.
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

    def swallowed(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_value in came:
            end(came[0])
        hook(unraisable)

    with handlers_kept():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, stop)
        hook, sys.unraisablehook = sys.unraisablehook, swallowed
        try:
            yield came
        finally:
            sys.unraisablehook = hook
            for watch in watches:
                watch.cancel()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restores the handlers of SIGTERM and SIGINT after the block, in which libraries may set their own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it was not set from Python, and cannot be restored from it
                signal.signal(number, handler)
