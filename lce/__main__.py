"""The entry, ``lce`` or ``python -m lce``: answers signals from the first moment on, while the rest is imported."""

import sys

from lce.foundations.signals import Stopped, stopping


def main() -> int:
    """Run the command line; return the exit status."""
    try:
        with stopping():
            from lce.cli import main as run

            return run()
    except Stopped as stopped:
        print(f"lce: {stopped}", file=sys.stderr)
        return stopped.status


if __name__ == "__main__":
    sys.exit(main())
