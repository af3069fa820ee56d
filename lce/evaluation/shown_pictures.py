"""Pictures that a vision-language model is shown, and who is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lce.data.pictures.attributes import Attribute
from lce.data.pictures.loading import read_picture
from lce.data.pictures.table import Picture, check_files, read_pictures, read_rows
from lce.foundations.errors import LceError

OPEN = 2
"""The group of a picture that is of neither."""
MOST = 200
"""Pictures without people that are read at most."""


@dataclass(frozen=True)
class Shown:
    """Pictures of people.

    Attributes:
        groups: 0, 1, or `OPEN`, (n).
        blocks: what is resampled together, by number, (n).
        labels: the class, −1 for none, (n).
    """

    pictures: list[Picture]
    classes: list[str]
    groups: NDArray[np.int64]
    blocks: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def openers(self) -> list[Callable[[], Image.Image]]:
        """What opens each of the pictures."""
        return [partial(read_picture, picture.file, picture.box) for picture in self.pictures]

    def among(self, rows: NDArray[np.bool_]) -> Shown:
        """Some of them."""
        chosen = [picture for picture, row in zip(self.pictures, rows, strict=True) if row]
        return Shown(chosen, self.classes, self.groups[rows], self.blocks[rows], self.labels[rows])


def shown_pictures(
    folder: Path, table: Path, attribute: Attribute, where: Mapping[str, Sequence[str]], matched: str | None
) -> Shown:
    """The pictures of a table, as `read_pictures` reads them, without those that lack their counterpart of the other
    group; LceError as there.
    """
    found = read_pictures(folder, table, attribute, where, None, matched)
    every = [picture for picture in found.pictures if not picture.is_unmatched]
    return Shown(
        every,
        found.classes,
        np.array([OPEN if picture.group is None else picture.group for picture in every]),
        np.unique([picture.block for picture in every], return_inverse=True)[1],
        np.array([-1 if picture.label is None else picture.label for picture in every]),
    )


def pictures_without_people(
    folder: Path, table: Path, where: Mapping[str, Sequence[str]]
) -> list[Callable[[], Image.Image]]:
    """What opens some of the pictures with these values, evenly spread over the table; none without any values.

    Raises:
        LceError: the table has no such column, or no such row, or a file does not exist.
    """
    if not where:
        return []
    rows = read_rows(table)
    for column in where:
        if column not in rows[0]:
            raise LceError(f"without_people: {table} has no column {column!r}; its columns are {', '.join(rows[0])}")
    chosen = [folder / row["file"] for row in rows if all(row[column] in values for column, values in where.items())]
    if not chosen:
        raise LceError(f"without_people: no row of {table} has these values")
    files = [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(MOST, len(chosen))).round().astype(int)]
    check_files(files, table)
    return [partial(read_picture, file) for file in files]
