"""The tests of WEAT and SEAT: two sets of targets X and Y, two of attributes A and B, built in or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from lce.foundations.errors import LceError
from lce.foundations.paths import shipped
from lce.metrics.seat import sentences

LISTS = ("x", "y", "a", "b")
ENCODINGS = ("words", "sentences", "templates")


@dataclass(frozen=True)
class AssociationTest:
    """The four sets of texts of a test, and whether they are encoded as WEAT's words or as SEAT's sentences."""

    name: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    a: tuple[str, ...]
    b: tuple[str, ...]
    protocol: Literal["weat", "seat"] = "weat"


TESTS_FOLDER = Path(__file__).parent / "weat"


def load_test(name: str | Path) -> AssociationTest:
    """A built-in test by name (weat6 to weat8, seat6 to seat8b), or a YAML file with the lists x, y, a and b.

    ``encoding`` in the file says what the lists hold: ``words`` (WEAT, the default), ``sentences`` (SEAT), or words
    for SEAT's ``templates``. Texts that are ``left_out`` are not used.

    Raises:
        LceError: there is no such test, a list is missing, too short or holds a text twice, or X and Y differ in size.
    """
    path = TESTS_FOLDER / f"{name}.yaml"
    if not path.exists():
        path = shipped(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in TESTS_FOLDER.glob("*.yaml")))
        raise LceError(f"evaluation.weat: neither a file nor a known test: {name!r}; known are {known}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LceError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(raw, dict) or not set(LISTS) <= set(raw) <= {*LISTS, "encoding", "left_out"}:
        raise LceError(f"{path}: expected the lists x, y, a and b, and at most encoding and left_out beside them")
    encoding = raw.get("encoding", "words")
    if encoding not in ENCODINGS:
        raise LceError(f"{path}: encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}")
    left_out = raw.get("left_out") or []
    for key, values in {**{key: raw[key] for key in LISTS}, "left_out": left_out}.items():
        if not isinstance(values, list) or not all(isinstance(w, str) and w for w in values):
            raise LceError(f"{path}: {key} must be a list of texts")
    texts = {key: tuple(raw[key]) for key in LISTS}
    if encoding == "templates":
        texts = {key: sentences(words) for key, words in texts.items()}
    if absent := set(left_out) - set().union(*texts.values()):
        raise LceError(f"{path}: left_out names {sorted(absent)[0]!r}, which is not among the texts")
    texts = {key: tuple(text for text in values if text not in left_out) for key, values in texts.items()}
    for key, values in texts.items():
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise LceError(f"{path}: {key} holds {twice!r} twice")
    sizes = [len(texts[key]) for key in LISTS]
    if sizes[0] != sizes[1] or sizes[0] < 2 or not all(sizes):
        raise LceError(f"{path}: x and y need the same size, at least 2, and a and b at least 1; got {sizes}")
    if set(texts["x"]) == set(texts["y"]) or set(texts["a"]) == set(texts["b"]):
        raise LceError(f"{path}: x and y, and a and b, must differ")
    return AssociationTest(path.stem, **texts, protocol="weat" if encoding == "words" else "seat")
