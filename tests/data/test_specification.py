from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from lce.data.specification import BiasSpecification, load_specification, parse_specification
from lce.foundations.errors import LceError

GOOD = {
    "groups": ["b", "a"],
    "target_pairs": [["queen", "king"], ["old woman", "old man"]],
    "attributes": {"b": ["dance"], "a": ["math", "x-ray"]},
}


def test_the_bundled_specification_is_the_papers(spec: BiasSpecification) -> None:
    assert spec.groups == ("female", "male")
    assert len(spec.target_pairs) == 16
    assert list(map(len, spec.attributes)) == [21, 20]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She is a nurse.", ["She", "nurse"]),
        ("HE likes Art!", ["HE", "Art"]),
        ("Parties, artful shepherds", []),
        ("state-of-the-art", []),
        ("a child-care centre", ["child-care"]),
        ("women's literature", ["women", "literature"]),
        ("her manager", ["manager"]),
    ],
)
def test_terms_are_whole_words_of_any_case(spec: BiasSpecification, text: str, found: list[str]) -> None:
    assert [text[term.start : term.end] for term in spec.find(text)] == found


@pytest.mark.parametrize(
    ("text", "swapped"),
    [("She left.", "He left."), ("SHE left.", "HE left."), ("then she", "then he"), ("Gentleman", "Lady")],
)
def test_swap_keeps_the_case(spec: BiasSpecification, text: str, swapped: str) -> None:
    assert spec.swap(text, next(spec.find(text))) == swapped


def test_terms_of_several_words() -> None:
    spec = parse_specification(GOOD, "test")
    term = next(spec.find("an Old  woman sang"))
    assert spec.swap("an Old  woman sang", term) == "an Old man sang"


def broken(**changes: object) -> dict:
    return {**copy.deepcopy(GOOD), **changes}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "expected a mapping"),
        (broken(extra=1), "unknown keys"),
        ({"groups": ["a", "b"]}, "missing keys"),
        (broken(groups=["a"]), "two different names"),
        (broken(target_pairs=[]), "set is empty"),
        (broken(target_pairs=[["queen"]]), "not paired"),
        (broken(target_pairs=[["queen", None]]), "is no word"),
        (broken(target_pairs=[["queen", "king"], ["Queen", "prince"]]), "'queen' stands in"),
        (broken(attributes={"a": ["math"], "b": []}), "attributes.b: the set is empty"),
        (broken(attributes={"a": ["math"], "b": ["math"]}), "'math' stands in"),
        (broken(attributes={"a": ["math"], "b": ["king"]}), "'king' stands in"),
        (broken(attributes={"a": ["math"]}), "expected one list under each"),
        (broken(attributes={"a": ["math"], "b": [False]}), "is no word"),
        (broken(target_pairs=[["queen", "\ud800"]]), "is no word"),
        (broken(attributes={"a": ["math"], "b": ["x"], None: ["y"]}), "expected one list under each"),
        (broken(groups=[" ", "a"]), "expected texts"),
        (broken(name={"a": 1}), "expected texts"),
        (broken(groups=["a"] * 9999), "two different names"),
    ],
)
def test_a_broken_specification_is_refused_with_the_reason(raw: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(LceError, match=message):
        load_specification(path)


def test_groups_may_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "numbers.yaml"
    path.write_text(yaml.safe_dump(broken(groups=[1, 2], attributes={1: ["dance"], 2: ["math"]})), encoding="utf-8")
    assert load_specification(path).groups == ("1", "2")


@pytest.mark.parametrize(
    "text",
    ["a: 2001-99-99", "a: " + "[" * 20_000, "\x00", "{? [a] : b}", "a: &x [*x]", "groups: &a [x, &b [*a, *a, *b]]"],
)
def test_what_yaml_makes_of_it_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LceError) as caught:
        load_specification(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LceError, match="nowhere"):
        load_specification(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(LceError, match="not valid YAML"):
        load_specification(tmp_path / "bad.yaml")


@pytest.mark.parametrize("text", ["a gİrl with a book", "the ſecretary wrote", "ſhe was there"])
def test_letters_that_only_resemble_a_term_are_none_of_it(text: str, spec: BiasSpecification) -> None:
    assert list(spec.find(text)) == []
