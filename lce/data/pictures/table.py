"""A folder of pictures with a table that says what they show: who, of which class, and of which group.

The table is a CSV file with a column `file`, the picture's path in the folder; `class` may be empty. FACET's own
annotation file is read as it is: one row a person, who is cut out by the bounding box.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from lce.data.pictures.attributes import Attribute
from lce.foundations.errors import LceError

TABLE = "table.csv"
Box = tuple[float, float, float, float]
FACET_COLUMNS = {"person_id", "filename", "class1"}
FACET_GENDERS = {"woman": "fem", "man": "masc", "non-binary": "non_binary", "": "na"}
FACET_AGES = {"young": "young", "middle": "middle", "older": "older", "": "na"}
"""What a table of lce's own says → the ends of the names of FACET's columns, which count votes."""
FACET_TONES = {"light": range(1, 5), "medium": range(5, 7), "dark": range(7, 11)}
"""Points of the Monk scale that annotators chose: the group of the mean of all their votes."""


@dataclass(frozen=True)
class Picture:
    """A picture of somebody.

    Attributes:
        box: where in the file, (left, upper, right, lower) in pixels; None for all of it.
        label: the class it shows, by its number; None if it has none, or another than was asked for.
        group: 0 or 1; None for neither.
        subject: what pictures of the same person share.
        block: what pictures share that are alike but for the group, or else, that are resampled together.
        name: what it shows, for a dictionary of texts.
        is_unmatched: whether it would be of a group, but nobody of the other one is in its block.
    """

    file: Path
    box: Box | None
    label: int | None
    group: int | None
    subject: str
    block: str
    name: str
    is_unmatched: bool = False


@dataclass(frozen=True)
class Pictures:
    """Pictures, and the names of their classes."""

    pictures: list[Picture]
    classes: list[str]
    names: list[str]
    """What all pictures of the table show, each once."""


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, by column.

    Raises:
        LceError: it cannot be read as UTF-8 text, is empty, or a row has not as many values as there are columns.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error
        raise LceError(f"{path}: cannot be read as a CSV table ({reason})") from error
    if not rows:
        raise LceError(f"{path}: holds no row below its header")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise LceError(f"{path}, line {number}: expected {len(reader.fieldnames or [])} values")
    return rows


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The same, and FACET's annotations in the form of lce's own tables."""
    rows = read_table(path)
    if set(rows[0]) >= FACET_COLUMNS:
        rows = [from_facet(row, f"{path}, line {number}") for number, row in enumerate(rows, 2)]
    return rows


def check_files(files: Iterable[Path], table: str | Path) -> None:
    """Raises LceError for the first of the ``files`` that a ``table`` lists and that does not exist."""
    for file in dict.fromkeys(files):
        if not _is_file(file):
            raise LceError(f"{file}: no such file; {table} lists it")


def read_pictures(
    folder: str | Path,
    table: str | Path,
    attribute: Attribute,
    where: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] | None = None,
    matched: str | None = None,
) -> Pictures:
    """The pictures that a ``table`` lists of people with a class, or of one of the attribute's groups.

    Args:
        where: column → values; rows with others are left out.
        classes: the classes to tell apart; by default all that the rows have.
        matched: the column that pictures share which are alike but for the group; a picture that nobody of the other
            group is matched with counts as of neither.

    Raises:
        LceError: the table cannot be read, lacks a column, a class of ``classes`` or one of the groups, or a file does
            not exist.
    """
    rows = read_rows(table)
    for column in ("file", "class", attribute.column, *(where or {}), *([matched] if matched else [])):
        if column not in rows[0]:
            raise LceError(f"{table}: has no column {column!r}; its columns are {', '.join(rows[0])}")
    chosen = [row for row in rows if all(row[column] in values for column, values in (where or {}).items())]
    if not chosen:
        raise LceError(f"where: no row of {table} has these values")
    named = sorted({row["class"] for row in chosen} - {""}) if classes is None else list(classes)
    present = {row["class"] for row in chosen}
    for name in named:
        if name not in present:
            raise LceError(f"classes: no row of {table} has the class {name!r}")
    if len(named) < 2:
        raise LceError(f"{table}: expected at least two classes to tell apart, found {named or 'none'}")
    found = [_picture(Path(folder), row, attribute, named, matched) for row in chosen]
    if matched:
        found = _paired(found)
    found = [picture for picture in found if picture.group is not None or picture.label is not None]
    for number, group in enumerate(attribute.groups):
        if not any(picture.group == number for picture in found):
            values = ", ".join(group.values)
            raise LceError(f"{table}: no row has the {attribute.column} of the group {group.name} ({values})")
    check_files((picture.file for picture in found), table)
    return Pictures(found, named, sorted({row["name"] for row in rows if row.get("name")}))


def _paired(pictures: list[Picture]) -> list[Picture]:
    """The ``pictures``, with no group where the block has none of the other one, so that there is nothing to match."""
    groups: dict[str, set[int | None]] = {}
    for picture in pictures:
        groups.setdefault(picture.block, set()).add(picture.group)
    return [
        picture
        if picture.group is None or {0, 1} <= groups[picture.block]
        else replace(picture, group=None, is_unmatched=True)
        for picture in pictures
    ]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # as of a name that is too long
        return False


def _picture(
    folder: Path, row: Mapping[str, str], attribute: Attribute, classes: list[str], matched: str | None
) -> Picture:
    group = attribute.group_of(row[attribute.column])
    box = row.get("box")
    subject = row.get("subject") or row["file"]
    owner = f"{subject}, {attribute.groups[group].name}" if group is not None else subject
    return Picture(
        file=folder / row["file"],
        box=_box(box, row["file"]) if box else None,
        label=classes.index(row["class"]) if row["class"] in classes else None,
        group=group,
        subject=owner,
        block=row[matched] if matched else subject,
        name=row.get("name") or row["class"],
    )


def _box(text: str, file: str) -> Box:
    """Left, upper, right and lower from x, y, width and height, as FACET writes them."""
    try:
        about = ast.literal_eval(text)
        left, upper, width, height = (float(about[key]) for key in ("x", "y", "width", "height"))
        if not (width > 0 and height > 0 and all(map(isfinite, (left, upper, width, height)))):
            raise ValueError
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise LceError(f"bounding box of {file}: expected x, y, width and height, got {text[:80]}") from error
    return left, upper, left + width, upper + height


def from_facet(row: Mapping[str, str], where: str) -> dict[str, str]:
    """A row of FACET's annotations in the form of lce's own tables.

    Raises:
        LceError: a number of votes is none.
    """

    def votes(column: str) -> int:
        text = row.get(column) or "0"
        try:
            return int(float(text))
        except (ValueError, OverflowError) as error:
            raise LceError(f"{where}: expected a number in {column}, got {text!r}") from error

    def most(columns: Mapping[str, str]) -> str:
        found = {value: votes(column) for value, column in columns.items()}
        best = max(found, key=lambda value: found[value])
        return best if found[best] and list(found.values()).count(found[best]) == 1 else ""

    tones = {point: votes(f"skin_tone_{point}") for point in range(1, 11)}
    total = sum(tones.values())
    mean = round(sum(point * count for point, count in tones.items()) / total) if total else None
    return {
        **row,
        "file": row["filename"],
        "box": row.get("bounding_box", ""),
        "class": row["class1"].replace("_", " "),
        "gender": most({name: f"gender_presentation_{column}" for name, column in FACET_GENDERS.items()}),
        "age": most({name: f"age_presentation_{column}" for name, column in FACET_AGES.items()}),
        "skin_tone": next((name for name, points in FACET_TONES.items() if mean in points), ""),
        "subject": row["filename"],
    }
