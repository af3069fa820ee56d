"""Attributes of people: those that come with lce, and files of one's own."""

from __future__ import annotations

import pytest

from lce.data.pictures.attributes import Attribute, Group, known_attributes, load_attribute
from lce.foundations.errors import LceError


@pytest.mark.parametrize("name", ["age", "gender", "skin-tone"])
def test_the_attributes_that_come_with_lce(name):
    attribute = load_attribute(name)
    assert attribute.name == name
    assert attribute.column == name.replace("-", "_")
    assert len(set(attribute.words)) == len(attribute.words)
    for number, group in enumerate(attribute.groups):
        assert all(attribute.group_of(value) == number for value in group.values)
    assert attribute.group_of("") is None
    assert known_attributes() == ["age", "gender", "skin-tone"]


def test_an_attribute_of_ones_own(tmp_path):
    path = tmp_path / "shoes.yaml"
    path.write_text("column: shoes\ngroups: {on: {values: [1], words: [shod person]}, "
                    "off: {values: [0, none], words: [barefoot person, bare feet]}}\n", encoding="utf-8")  # fmt: skip
    wanted = Group("True", ("1",), ("shod person",)), Group("False", ("0", "none"), ("barefoot person", "bare feet"))
    assert load_attribute(str(path)) == Attribute("shoes", "shoes", wanted)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "column: c", "groups: {a: {values: [x], words: [y]}}", "column: c\ngroups: [a, b]",
        "column: c\ngroups: {a: {values: [x], words: [y]}}",
        "column: c\ngroups: {a: {values: [x], words: [y]}, b: {values: [x], words: [z]}}",
        "column: c\ngroups: {a: {values: [x], words: []}, b: {values: [z], words: [z]}}",
        "column: c\ngroups: {a: {values: [x]}, b: {values: [z], words: [z]}}",
        "column: [c]\ngroups: {a: {values: [x], words: [y]}, b: {values: [z], words: [z]}}",
        "column: c\ngroups: {a: {values: x, words: [y]}, b: {values: [z], words: [z]}}",
        "{", "\t", "column: c\ngroups: {a: 1, b: 2}", "column: c\ngroups: {a: {values: 1, words: 2}, b: null}",
    ],
)  # fmt: skip
def test_attributes_that_are_none_are_refused(content, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(LceError, match=r"mine\.yaml: expected column: NAME, groups: two names"):
        load_attribute(str(path))


def test_an_unknown_attribute_is_refused(tmp_path):
    with pytest.raises(LceError, match="attribute height: is none of age, gender, skin-tone, nor a YAML file"):
        load_attribute("height")
    with pytest.raises(LceError, match="nor a YAML file that can be read"):
        load_attribute(str(tmp_path))
