"""Bias specification: the words whose association is to be found and edited.

Two target groups T1 and T2 are given as pairs of counterparts (woman/man), with one attribute set per group of
the words stereotypical for it: A1 for T1, A2 for T2. Everything that depends on words (augmentation,
preferential masking) reads them from here, so that another bias needs only another YAML file.
"""

import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lce.foundations.errors import LceError
from lce.foundations.paths import shipped

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Term:
    """One occurrence of a specification term in a text: character span, group 0 or 1, and its kind."""

    start: int
    end: int
    group: int
    is_target: bool


@dataclass(frozen=True)
class BiasSpecification:
    """Target pairs and attribute sets, lower-case, without repetitions.

    ``groups`` names T1 and T2; ``target_pairs`` holds (T1 term, T2 term); ``attributes`` is (A1, A2).
    """

    name: str
    groups: tuple[str, str]
    target_pairs: tuple[tuple[str, str], ...]
    attributes: tuple[tuple[str, ...], tuple[str, ...]]

    def find(self, text: str) -> Iterator[Term]:
        """All terms in ``text``, left to right, whatever their case.

        A term is a whole word: ``art`` is found neither in ``party`` nor in ``state-of-the-art``. A term may
        contain a hyphen itself (``child-care``).
        """
        for match in _pattern(self).finditer(text):
            # Ignoring case, the pattern matches İ for i and ſ for s, which stay other letters in lower case.
            if known := _lookup(self).get(_normal(match.group())):
                yield Term(match.start(), match.end(), *known)

    def swap(self, text: str, term: Term) -> str:
        """``text`` with the target ``term`` replaced by its counterpart in the same case (She → He, SHE → HE)."""
        found = text[term.start : term.end]
        return text[: term.start] + _like(_counterparts(self)[_normal(found)], found) + text[term.end :]


# Cached outside the object, so that a specification pickles to the same bytes before and after its use:
# data sets are cached by the hash of the function that made them, and the specification is part of it.
@lru_cache
def _lookup(spec: BiasSpecification) -> dict[str, tuple[int, bool]]:
    targets = {term: (group, True) for pair in spec.target_pairs for group, term in enumerate(pair)}
    attributes = {term: (group, False) for group, terms in enumerate(spec.attributes) for term in terms}
    return targets | attributes


@lru_cache
def _counterparts(spec: BiasSpecification) -> dict[str, str]:
    return {a: b for first, second in spec.target_pairs for a, b in ((first, second), (second, first))}


@lru_cache
def _pattern(spec: BiasSpecification) -> re.Pattern[str]:
    longest_first = sorted(_lookup(spec), key=len, reverse=True)
    alternatives = "|".join(r"\s+".join(map(re.escape, term.split())) for term in longest_first)
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])", re.IGNORECASE)


def _normal(term: str) -> str:
    return " ".join(term.lower().split())


def _like(word: str, model: str) -> str:
    """``word`` in the case of ``model``: all capitals, first letter capital, or as it is."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


def load_specification(path: str | Path) -> BiasSpecification:
    """Read and check a specification file.

    Raises:
        LceError: the file is missing or is no YAML mapping; a key is unknown or missing; a term is not
            paired, is given twice, is in both groups, or is no text; a set is empty.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(shipped(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LceError(f"bias specification {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise LceError(f"bias specification {path}: not valid YAML ({' '.join(str(error).split())})") from error
    try:
        return parse_specification(raw, default_name=path.stem)
    except LceError as error:
        raise LceError(f"bias specification {path}: {error}") from error


def parse_specification(raw: Any, default_name: str) -> BiasSpecification:
    """Check the content of a specification file; see `load_specification`."""
    keys = {"name", "groups", "target_pairs", "attributes"}
    if not isinstance(raw, dict):
        raise LceError(f"expected a mapping with the keys {sorted(keys)}, got {type(raw).__name__}")
    if unknown := set(raw) - keys:
        raise LceError(f"unknown keys {sorted(map(str, unknown))}; known are {sorted(keys)}")
    if missing := keys - {"name"} - set(raw):
        raise LceError(f"missing keys {sorted(missing)}")
    groups = raw["groups"]
    if not isinstance(groups, list) or len(set(map(str, groups))) != 2 or len(groups) != 2:
        raise LceError(f"groups: expected two different names, got {reprlib.repr(groups)}")
    first, second = map(str, groups)
    name = raw.get("name", default_name)
    if not (_is_text(first) and _is_text(second) and _is_text(name)):
        raise LceError(f"name and groups: expected texts, got {reprlib.repr([name, *groups])}")
    pairs = raw["target_pairs"]
    if not isinstance(pairs, list) or not pairs:
        raise LceError("target_pairs: the set is empty; expected a list of [term, counterpart]")
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise LceError(f"target_pairs: {reprlib.repr(pair)} is not paired; expected [{first} term, {second} term]")
    sets = raw["attributes"]
    if not isinstance(sets, dict) or sorted(map(str, sets)) != sorted((first, second)):
        raise LceError(f"attributes: expected one list under each of {first!r} and {second!r}")
    sets = {str(group): terms for group, terms in sets.items()}
    attributes = []
    for group in (first, second):
        if not isinstance(sets[group], list) or not sets[group]:
            raise LceError(f"attributes.{group}: the set is empty; expected a list of words")
        attributes.append(tuple(_term(word, f"attributes.{group}") for word in sets[group]))
    spec = BiasSpecification(
        name=name,
        groups=(first, second),
        target_pairs=tuple((_term(a, "target_pairs"), _term(b, "target_pairs")) for a, b in pairs),
        attributes=(attributes[0], attributes[1]),
    )
    _refuse_repetitions(spec)
    return spec


def _term(word: Any, where: str) -> str:
    if not _is_text(word):
        raise LceError(f"{where}: {reprlib.repr(word)} is no word; put it in quotes if YAML reads it as something else")
    return _normal(word)


def _is_text(value: Any) -> bool:
    """Whether ``value`` is a text that is not blank and can be written to a file: half a surrogate pair cannot."""
    return isinstance(value, str) and bool(value.strip()) and not SURROGATE.search(value)


def _refuse_repetitions(spec: BiasSpecification) -> None:
    places = [
        *((term, f"target group {spec.groups[i]!r}") for pair in spec.target_pairs for i, term in enumerate(pair)),
        *((term, f"attributes of {spec.groups[i]!r}") for i, terms in enumerate(spec.attributes) for term in terms),
    ]
    seen: dict[str, str] = {}
    for term, place in places:
        if term in seen:
            raise LceError(f"{term!r} stands in the {seen[term]} and again in the {place}; a term has one place only")
        seen[term] = place
