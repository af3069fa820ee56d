"""The terminal that tables are printed to."""

from rich.console import Console


def wide_console() -> Console:
    """As wide as the terminal; where the output goes to a file, wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=120)
