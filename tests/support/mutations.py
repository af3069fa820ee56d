"""What can be wrong with a file that somebody else wrote: one random fault, in its structure or in its bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**9, 2**63, -(10**9), 10**40, 0.5, -0.5, 1e308, float("nan"), float("inf"),
    "", " ", "foo", "1", "\x00", "\ud800", "né\n\u2028e", "x" * 5000, "../..", "gelu", "sdpa", "float16",
    [], [None], [[]], ["a", 1], [0, 1], list(range(300)), {}, {"a": 1}, {"0": {"1": {}}}, {"id": 10**9}, {"": None},
]  # fmt: skip
KEYS = ["", "foo", "model_type", "type", "dtype", "quantization_config", "rope_scaling", "auto_map", "groups"]


def mutant(content: bytes, random: Random, parse: Callable[[bytes], Any], dump: Callable[[Any], bytes]) -> bytes:
    """``content`` with one fault, sometimes with two or three."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        if random.random() < 0.2:
            content = _damaged(content, random)
        else:
            try:
                tree = parse(content)
            except Exception:  # an earlier fault has made it unreadable, which is fine
                return content
            content = dump(_altered(tree, random))
    return content


def _damaged(content: bytes, random: Random) -> bytes:
    if not content:
        return content
    at = random.randrange(len(content))
    match random.randrange(8):
        case 0:
            return content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]
        case 1:
            return content[:at]
        case 2:
            return b"\xef\xbb\xbf" + content
        case 3:
            return content[:at] + b"\xff\xfe" + content[at:]
        case 4:
            return content[:at] + b"\x00" + content[at:]
        case 5:
            return content[:at] + content[at + random.randrange(1, 9) :]
        case 6:
            return content[:at] + b"[" * 20_000 + content[at:]
        case _:
            return b"" if random.random() < 0.2 else content + content


def _altered(tree: Any, random: Random) -> Any:
    """A copy of ``tree`` with one place in it altered."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return random.choice(VALUES)
    if random.random() < 0.5:  # long lists of words must not hide the few keys at the top
        shallow = [place for place in places if place[2] <= 1 and isinstance(place[0], dict)]
        places = shallow or places
    owner, key, _ = random.choice(places)
    match random.randrange(8):
        case 0 | 1 | 2:
            owner[key] = copy.deepcopy(random.choice(VALUES))
        case 3:
            del owner[key]
        case 4:
            value = owner[key]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            owner[key] = random.choice([-value, value + 1, value * 1000, str(value), [value]]) if number else [value]
        case 5 if isinstance(owner, dict):
            owner[random.choice([f"{key}x", *KEYS])] = owner.pop(key)
        case 6:
            other, name, _ = random.choice(places)
            owner[key] = copy.deepcopy(other[name])
        case _:
            if isinstance(owner, dict):
                owner[random.choice(KEYS)] = copy.deepcopy(random.choice([owner[key], *VALUES]))
            else:
                owner.insert(key, copy.deepcopy(owner[key]))
    return tree


def _places(tree: Any, depth: int = 0) -> Any:
    """(container, key or index, depth) of every value in ``tree``."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key, depth
        yield from _places(tree[key], depth + 1)
