"""Tables of pictures: what is taken from them, and those that do not fit."""

from __future__ import annotations

import csv

import pytest
from painted import paint, rows, write_table

from lce.data.pictures.attributes import load_attribute
from lce.data.pictures.table import read_pictures, read_table
from lce.foundations.errors import LceError

GENDER, TONE = load_attribute("gender"), load_attribute("skin-tone")


@pytest.fixture
def folder(tmp_path):
    return paint(tmp_path / "pictures")


def read(folder, attribute=GENDER, **options):
    return read_pictures(folder, folder / "table.csv", attribute, **options)


def test_every_row_becomes_a_picture(folder):
    found = read(folder, matched="scene")
    assert found.classes == ["circle", "square", "triangle"]
    assert len(found.pictures) == len(rows())
    assert found.names == sorted({row["name"] for row in rows()})
    for picture, row in zip(found.pictures, rows(), strict=True):
        assert picture.file == folder / row["file"]
        assert picture.group == ["woman", "man"].index(row["gender"])
        assert picture.label == (found.classes.index(row["class"]) if row["class"] else None)
        assert (picture.box, picture.block, picture.name) == (None, row["scene"], row["name"])


def test_people_are_told_apart_by_subject_and_group(folder):
    """By skin tone, the two pictures of each subject are of two groups: they cannot be one person."""
    by_gender, by_tone = read(folder), read(folder, TONE)
    assert len({picture.subject for picture in by_gender.pictures}) == len(rows()) / 2
    assert len({picture.subject for picture in by_tone.pictures}) == len(rows())
    owners = {(picture.block, picture.subject) for picture in by_gender.pictures}
    assert len(owners) == len(rows()) / 2, "unmatched, a block is one subject"


def test_who_has_nobody_of_the_other_group_to_be_matched_with_is_of_neither(folder):
    table = [row for row in rows() if (row["scene"], row["gender"]) != (rows()[0]["scene"], "woman")]
    write_table(folder / "table.csv", table)
    found = {picture.block: set() for picture in read(folder).pictures}
    for picture in read(folder, matched="scene").pictures:
        found.setdefault(picture.block, set()).add(picture.group)
    assert found[rows()[0]["scene"]] <= {None}
    others = {row["scene"] for row in rows()} - {rows()[0]["scene"]}
    assert all(found[scene] == {0, 1} for scene in others)


def test_rows_and_classes_can_be_chosen(folder):
    where = {"split": ["training"], "skin_tone": ["dark", "unknown"]}
    found = read(folder, where=where, classes=["triangle", "circle"])
    chosen = [row for row in rows() if row["split"] == "training" and row["skin_tone"] == "dark"]
    assert len(found.pictures) == len(chosen)
    assert found.classes == ["triangle", "circle"]
    labels = {"triangle": 0, "circle": 1}
    assert [picture.label for picture in found.pictures] == [labels.get(row["class"]) for row in chosen]
    assert len(found.names) == len({row["name"] for row in rows()}), "a dictionary has the names of all"


def test_who_has_neither_group_nor_class_is_left_out(folder):
    table = [row | {"gender": "unknown" if i < 30 else row["gender"]} for i, row in enumerate(rows())]
    write_table(folder / "table.csv", table)
    found = read(folder)
    kept = [row for row in table if row["gender"] != "unknown" or row["class"]]
    assert len(found.pictures) == len(kept) < len(table) or all(row["class"] for row in table[:30])
    assert [picture.group for picture in found.pictures[:30]] == [None] * 30
    classes = ["circle", "square"]
    assert len(read(folder, classes=classes).pictures) == sum(
        row["class"] in classes or row["gender"] != "unknown" for row in table
    )


def test_a_table_may_lack_what_is_not_needed(folder):
    write_table(folder / "table.csv", [{key: row[key] for key in ("file", "class", "gender")} for row in rows()])
    found = read(folder)
    assert found.names == []
    assert {picture.subject for picture in found.pictures} == {f"{row['file']}, {row['gender']}" for row in rows()}
    assert found.pictures[0].name == rows()[0]["class"]


def test_a_table_may_begin_with_a_mark_and_quote_its_values(folder):
    with (folder / "table.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows()[0]), quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(row | {"name": 'a "quoted", name'} for row in rows())
    assert read(folder).names == ['a "quoted", name']


def without(column):
    return [{key: value for key, value in row.items() if key != column} for row in rows()]


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (without("file"), {}, "has no column 'file'; its columns are class, gender"),
        (without("class"), {}, "has no column 'class'"),
        (without("gender"), {}, "has no column 'gender'"),
        (rows(), {"where": {"colour": ["red"]}}, "has no column 'colour'"),
        (rows(), {"matched": "pose"}, "has no column 'pose'"),
        (rows(), {"where": {"split": ["test"]}}, "where: no row of .*table.csv has these values"),
        (rows(), {"where": {"split": []}}, "where: no row of .*table.csv has these values"),
        (rows(), {"classes": ["circle", "hexagon"]}, "classes: no row of .*table.csv has the class 'hexagon'"),
        (rows(), {"where": {"class": ["circle"]}}, r"expected at least two classes to tell apart, found \['circle'\]"),
        (rows(), {"where": {"class": [""]}}, "expected at least two classes to tell apart, found none"),
        (rows(), {"where": {"gender": ["man"]}}, r"no row has the gender of the group woman \(woman\)"),
        ([row | {"gender": ""} for row in rows()], {}, "no row has the gender of the group woman"),
        ([row | {"file": "none.png"} for row in rows()], {}, "none.png: no such file; .*table.csv lists it"),
        ([row | {"file": "../pictures"} for row in rows()], {}, "pictures: no such file"),
        ([row | {"file": ""} for row in rows()], {}, "no such file"),
        ([row | {"file": "x" * 300} for row in rows()], {}, "no such file"),
        ([row | {"file": "a\0b"} for row in rows()], {}, "no such file"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused(table, options, message, folder):
    write_table(folder / "table.csv", table)
    with pytest.raises(LceError, match=message):
        read(folder, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no row below its header"),
        (b"file,class,gender\n", "holds no row below its header"),
        (b"file,class,gender\na,b,c\nd,e\n", "line 3: expected 3 values"),
        (b"file,class,gender\na,b,c,d\n", "line 2: expected 3 values"),
        (b'file,class,gender\na,"b,c\n', "cannot be read as a CSV table"),
        (b'file,class,gender\na,"b"c,d\n', "cannot be read as a CSV table"),
        (b"file,class,gender\na,b,\xff\n", "cannot be read as a CSV table"),
        (b"file,class,gender\na,b," + b"c" * 200_000, "cannot be read as a CSV table"),
    ],
)
def test_tables_that_are_none_are_refused(content, message, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(LceError, match=message) as error:
        read_table(tmp_path / "table.csv")
    assert len(str(error.value).splitlines()) == 1


def test_a_table_that_is_missing_is_refused(tmp_path):
    with pytest.raises(LceError, match=r"none\.csv: cannot be read as a CSV table \(no such file\)"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(LceError, match="cannot be read as a CSV table"):
        read_table(tmp_path)
