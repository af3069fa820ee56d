"""The sentences of SEAT (May et al. 2019): words put into templates that say almost nothing.

Which templates a word goes into depends on its kind. The published tests cut the larger target set at random to
the size of the smaller one; a test's ``left_out`` names the sentences that were cut, so that its numbers can be
compared.
"""

from collections.abc import Iterable
from pathlib import Path

import yaml

TEMPLATES, KINDS, PLURALS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_bytes()).values()


def kind(word: str) -> str:
    """The kind of ``word``: as listed in `KINDS`, or a name if it is capitalised, or a thing."""
    listed = (name for name, words in KINDS.items() if word in words.split())
    return next(listed, "name" if word[0].isupper() else "thing")


def sentences(words: Iterable[str]) -> tuple[str, ...]:
    """All sentences of ``words``."""
    filled = (
        template.format(x=word, xs=_plural(word), a=f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}")
        for word in words
        for template in TEMPLATES[kind(word)]
    )
    return tuple(sentence[0].upper() + sentence[1:] for sentence in filled)


def _plural(word: str) -> str:
    if word in PLURALS:
        return PLURALS[word]
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith("s") else f"{word}s"
