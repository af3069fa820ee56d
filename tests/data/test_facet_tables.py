"""FACET's annotations are read as they are: who is where in which picture, and what most annotators saw."""

from __future__ import annotations

import json

import pytest
from painted import painted, write_table

from lce.data.pictures.attributes import load_attribute
from lce.data.pictures.loading import read_picture
from lce.data.pictures.table import from_facet, read_pictures
from lce.foundations.errors import LceError

GENDER, TONE = load_attribute("gender"), load_attribute("skin-tone")
FACET = ["person_id", "filename", "class1", "class2", "bounding_box", "gender_presentation_masc",
         "gender_presentation_fem", "gender_presentation_non_binary", "gender_presentation_na",
         "age_presentation_young", "age_presentation_middle", "age_presentation_older", "age_presentation_na",
         *(f"skin_tone_{point}" for point in range(1, 11)), "skin_tone_na"]  # fmt: skip


def person(number, **known):
    """A row of FACET's annotations, as its authors publish them."""
    row = dict.fromkeys(FACET, "0") | {
        "person_id": str(1000 + number), "filename": "sa_1.jpg", "class1": "soccer_player", "class2": "",
        "bounding_box": json.dumps({"x": 16.2, "y": 0.0, "width": 15.5, "height": 16.1, "dict_attributes": {}}),
    }  # fmt: skip
    return row | {key: str(value) for key, value in known.items()}


def test_annotations_of_facet_are_read_as_they_are(tmp_path):
    table = [
        person(0, gender_presentation_masc=1, age_presentation_young=1, skin_tone_1=1, skin_tone_3=2),
        person(1, gender_presentation_fem=1, class1="nurse", class2="doctor", age_presentation_older=1, skin_tone_9=3),
        person(2, gender_presentation_non_binary=1, class1="nurse", skin_tone_5=1, skin_tone_6=1),
        person(3, gender_presentation_na=1, age_presentation_na=1, skin_tone_na=3),
    ]
    write_table(tmp_path / "annotations.csv", table)
    picture = painted("circle", "woman", "light", 0)
    picture.save(tmp_path / "sa_1.jpg")
    found = read_pictures(tmp_path, tmp_path / "annotations.csv", GENDER)
    assert found.classes == ["nurse", "soccer player"]
    assert [(one.group, one.label) for one in found.pictures] == [(1, 1), (0, 0), (None, 0), (None, 1)]
    assert found.pictures[0].box == (16.2, 0, 31.7, 16.1)
    assert read_picture(found.pictures[0].file, found.pictures[0].box).size == (16, 16)
    by_tone = read_pictures(tmp_path, tmp_path / "annotations.csv", TONE)
    assert [one.group for one in by_tone.pictures] == [0, 1, None, None]
    by_age = read_pictures(tmp_path, tmp_path / "annotations.csv", load_attribute("age"))
    assert [one.group for one in by_age.pictures] == [0, 1, None, None]


@pytest.mark.parametrize(
    ("votes", "gender"),
    [
        ({"masc": 2, "fem": 1}, "man"),
        ({"masc": 1, "fem": 1}, ""),
        ({}, ""),
        ({"fem": "3.0"}, "woman"),
        ({"fem": ""}, ""),
        ({"fem": 1, "non_binary": 2}, "non-binary"),
        ({"masc": 1, "na": 2}, ""),
    ],
)
def test_the_gender_is_what_most_annotators_saw(votes, gender):
    row = person(0, **{f"gender_presentation_{name}": count for name, count in votes.items()})
    assert from_facet(row, "here")["gender"] == gender


@pytest.mark.parametrize(
    ("points", "tone"), [((1, 4), "light"), ((4, 6), "medium"), ((7, 10), "dark"), ((10,), "dark"), ((), "")]
)
def test_the_skin_tone_is_the_mean_of_all_votes(points, tone):
    assert from_facet(person(0, **{f"skin_tone_{point}": 1 for point in points}), "here")["skin_tone"] == tone


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"gender_presentation_fem": "many"}, "line 2: expected a number in gender_presentation_fem, got 'many'"),
        ({"gender_presentation_fem": "nan"}, "expected a number in gender_presentation_fem"),
        ({"gender_presentation_fem": "inf"}, "expected a number in gender_presentation_fem"),
        ({"bounding_box": "nothing"}, "bounding box of sa_1.jpg: expected x, y, width and height, got nothing"),
        ({"bounding_box": "{'x': 1, 'y': 2, 'width': 3}"}, "bounding box of sa_1.jpg: expected"),
        ({"bounding_box": "{'x': 1, 'y': 2, 'width': 0, 'height': 9}"}, "bounding box of sa_1.jpg: expected"),
        ({"bounding_box": "[1, 2, 3, 4]"}, "bounding box of sa_1.jpg: expected"),
        ({"bounding_box": "{'x': 1e999, 'y': 2, 'width': 1, 'height': 9}"}, "bounding box of sa_1.jpg: expected"),
        ({"bounding_box": "(" * 10_000}, "bounding box of sa_1.jpg: expected"),
    ],
)
def test_annotations_that_are_damaged_are_refused(known, message, tmp_path):
    people = [person(0, gender_presentation_masc=1, class1="nurse"), person(1, gender_presentation_fem=1)]
    write_table(tmp_path / "annotations.csv", [people[0] | known, people[1]])
    painted("circle", "woman", "light", 0).save(tmp_path / "sa_1.jpg")
    with pytest.raises(LceError, match=message):
        read_pictures(tmp_path, tmp_path / "annotations.csv", GENDER)


def test_annotations_of_facet_without_a_column_are_refused(tmp_path):
    table = [{key: value for key, value in person(0).items() if key != "filename"}]
    write_table(tmp_path / "annotations.csv", table)
    with pytest.raises(LceError, match="has no column 'file'; its columns are person_id, class1"):
        read_pictures(tmp_path, tmp_path / "annotations.csv", GENDER)
