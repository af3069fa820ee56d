"""Figures as SVG in a page, or as files."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from lce.foundations.atomic_files import replaced_file
from lce.foundations.overwriting import PICTURE_MARK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_svg(figure: Figure) -> str:
    """The figure as an element of an HTML page."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that ``path`` ends in, .png or .svg."""
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": PICTURE_MARK}
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
