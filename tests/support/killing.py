"""Runs of lce in processes of their own that are ended at a chosen moment, started from one that has imported all.

A process that is forked from it starts in a few milliseconds; that has to be one in which no thread was started yet,
and so is none of the tests' own.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lce.foundations.logs import SWITCHES

os.environ.update(dict.fromkeys(SWITCHES, "1"))  # no bars: read when what follows is imported
CONTEXT = multiprocessing.get_context("forkserver")
LCE = ("lce.cli", "lce.commands.edit_run", "lce.metrics.suite", "lce.training.pruning.imp", "lce.commands.tables")
LIBRARIES = ("datasets", "pandas", "torch.utils.tensorboard", "transformers.models.bert.modeling_bert")
CONTEXT.set_forkserver_preload([*LCE, *LIBRARIES])
PATIENCE = 180


@dataclass(frozen=True)
class Moment:
    """The moment right ``before`` or after the ``count``-th call of a function, by its stage in the work."""

    stage: str
    count: int = 1
    before: bool = True


STAGES: dict[str, tuple[str, str]] = {
    "start": ("lce.cli", "_parse"),
    "data": ("lce.data.prepare", "_sentences"),
    "fit": ("lce.training.module", "LanguageModel.training_step"),
    "autoencoder": ("lce.training.autoencoder.module", "AutoencoderModule.training_step"),
    "checkpoint": ("torch", "save"),
    "validation": ("lce.training.module", "LanguageModel.validation_step"),
    "measurement": ("lce.metrics.suite", "BiasSuite.measure"),
    "write": ("os", "pwrite"),
    "spool": ("lce.storage.safetensors_file", "TensorWriter.add"),
    "rename": ("pathlib", "Path.replace"),
}
"""The function of each stage: its module, and its name there."""


def ended_at(moment: Moment, number: int) -> None:
    """Have this process end itself by signal ``number`` at the ``moment``."""
    module, name = STAGES[moment.stage]
    owner: Any = __import__(module, fromlist=["_"])
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), count(1)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        is_moment = next(calls) == moment.count  # of its own call: several threads may be in the function at once
        if is_moment and moment.before:
            if moment.stage == "checkpoint":  # half of it is there
                arguments[1].write(b"PK half a checkpoint")
                arguments[1].flush()
            os.kill(os.getpid(), number)
        result = original(*arguments, **options)
        if is_moment and not moment.before:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, last, wrapped)


def work(
    arguments: Sequence[str], output: str, environment: dict[str, str], moment: Moment | None, number: int
) -> None:
    """What a process does: ``lce`` with ``arguments``, what it says going to the files ``output``.out and .err."""
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
    sys.stdout, sys.stderr = (open(descriptor, "w", closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    os.environ.update(environment)
    tempfile.tempdir = None  # chosen anew
    answer_interrupts()
    from lce.cli import main
    from lce.foundations import threads

    threads._processors = lambda: 2  # as in the tests

    if moment:
        ended_at(moment, number)
    Path(f"{output}.begun").touch()
    status = main(list(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def answer_interrupts() -> None:
    """SIGINT is answered, even where the tests run in the background of a shell, which has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Ending:
    """How a run ended: its status, minus the signal's number if that ended it, and what it said."""

    status: int
    out: str
    err: str


def run(
    arguments: Sequence[str],
    output: Path,
    moment: Moment | float | None = None,
    number: int = signal.SIGKILL,
    **environment: str,
) -> Ending:
    """Run ``lce``; at the ``moment`` (a stage, or seconds after it began) it gets the signal ``number``."""
    at_stage = moment if isinstance(moment, Moment) else None
    process = CONTEXT.Process(target=work, args=(arguments, str(output), environment, at_stage, number))
    begun = Path(f"{output}.begun")
    begun.unlink(missing_ok=True)
    process.start()
    if isinstance(moment, float):
        while not begun.exists():
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(moment)
        if process.is_alive() and process.pid:
            os.kill(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode is not None, f"still running after {PATIENCE} s"
    said = {name: Path(f"{output}.{name}").read_text(encoding="utf-8", errors="replace") for name in ("out", "err")}
    return Ending(process.exitcode, **said)


def contents(folder: Path, left_out: Callable[[Path], bool] = lambda path: False) -> dict[str, str]:
    """SHA-256 by name of the files in ``folder``."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not left_out(path)
    }


def check_ending(ending: Ending, number: int) -> None:
    """SIGKILL leaves its own status; SIGTERM and SIGINT 143 and 130, and one line that says how to go on."""
    if number == signal.SIGKILL:
        assert ending.status == -signal.SIGKILL
        return
    assert ending.status == 128 + number, f"status {ending.status}: {ending.err}"
    lines = [line for line in ending.err.splitlines() if "resumes from here" in line]
    assert lines == [f"lce: stopped by {signal.Signals(number).name}; the same command resumes from here"]
    assert "Traceback" not in ending.err


def another_file_system(folder: Path) -> str:
    """A folder for temporary files that is not on the file system of ``folder``."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == folder.stat().st_dev:
        pytest.skip("there is no other file system")
    place = memory / f"lce-tests-{os.getpid()}"
    place.mkdir(exist_ok=True)
    return str(place)
