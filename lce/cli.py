"""The one entry: ``lce <command>``. Parses, calls one function, prints what it made."""

import os
import select
import signal
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from importlib.metadata import version

from jsonargparse import Namespace

from lce.commands.arguments import Command, chosen, parse
from lce.commands.patch import ACTIONS, arguments_of
from lce.foundations.atomic_files import disk_error
from lce.foundations.errors import LceError
from lce.foundations.logs import quieten
from lce.foundations.signals import Stopped, stopping


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``lce`` with ``arguments`` (by default the command line's); return the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with stopping() as came:
        try:
            command, values = _parse(arguments)
            quieten()
            command(values)
            sys.stdout.flush()
        except (LceError, ArgumentError) as error:
            if not came:
                print(f"lce: error: {' '.join(str(error).split())}", file=sys.stderr)
                return 2
        except KeyboardInterrupt:
            came.append(Stopped(signal.SIGINT))
        except BaseException as error:
            if isinstance(error, BrokenPipeError) and _has_no_reader():  # who has seen enough of the output
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            elif not came:  # else it comes of the signal
                if not (cause := disk_error(error)):
                    raise
                print(
                    f"lce: error: {cause.filename or 'a file'}: cannot be written ({cause.strerror})", file=sys.stderr
                )
                return 2
    if came:
        print(f"lce: {came[0]}", file=sys.stderr)
        return came[0].status
    return 0


def _has_no_reader() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _parse(arguments: list[str]) -> tuple[Command, Namespace]:
    """What to call, and with which values. Raises SystemExit where only help or the version is wanted."""
    if arguments == ["--version"]:
        print(f"lce {version('lce')}")
        raise SystemExit(0)
    if arguments[:1] == ["patch"]:  # starts without what the other commands need
        action, rest = chosen("lce patch", {name: command for name, (command, _) in ACTIONS.items()}, arguments[1:])
        name, command, known = f"patch {action}", ACTIONS[action][0], arguments_of(action)
    else:
        from lce.commands.registry import COMMANDS

        name, rest = chosen("lce", {name: command for name, (command, _) in COMMANDS.items()}, arguments)
        if rest and f"{name} {rest[0]}" in COMMANDS:
            name, rest = f"{name} {rest[0]}", rest[1:]
        command, known = COMMANDS[name]
    return command, parse(name, command.__doc__ or "", rest, known)


if __name__ == "__main__":
    sys.exit(main())
