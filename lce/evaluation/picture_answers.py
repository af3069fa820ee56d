"""What answers about pictures say: the class, and the group of the person."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lce.evaluation.shown_pictures import OPEN, Shown

NEITHER, BOTH = "neither", "both"
"""What pictures of neither group are called, and answers that name none of the groups, or both."""


def names_class(answer: str, name: str) -> bool:
    """Whether an ``answer`` says the ``name`` of a class."""
    return _says(answer, [name])


def group_named(answer: str, words: Sequence[Sequence[str]]) -> int | None:
    """The group whose ``words`` an ``answer`` uses, `OPEN` where it uses none; None where it uses those of both."""
    named = [_says(answer, own) for own in words]
    return None if all(named) else OPEN if not any(named) else named.index(True)


def _says(answer: str, words: Sequence[str]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) for word in words)


def rightly_named(shown: Shown, answers: Sequence[str]) -> NDArray[np.float64]:
    """Of each picture with a class, whether the answer names it: 1 or 0."""
    return np.array([
        float(names_class(answer, shown.classes[label]))
        for answer, label in zip(answers, shown.labels, strict=True) if label >= 0
    ])  # fmt: skip


def counted(shown: Shown, named: Sequence[int | None], groups: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of the pictures of each group and of neither, how many answers name which group, neither, or both.

    Args:
        named: what `group_named` says of each answer.
        groups: their names.
    """
    heard: dict[int | None, str] = {0: groups[0], 1: groups[1], OPEN: NEITHER, None: BOTH}
    found: dict[str, dict[str, int]] = {}
    for number, kind in ((0, groups[0]), (1, groups[1]), (OPEN, NEITHER)):
        own = np.flatnonzero(shown.groups == number).tolist()
        if own:
            said = [heard[named[row]] for row in own]
            found[kind] = {name: said.count(name) for name in heard.values()}
    return found
