"""The sentences of SEAT (May et al. 2019): words put into templates that say next to nothing.

Which templates a word goes into depends on its kind. The published tests cut the larger target set at random to
the size of the smaller one; a test's ``left_out`` names what fell away, so that its numbers can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable

NOUN = ("This is {a}.", "That is {a}.", "There is {a}.", "Here is {a}.", "The {x} is here.", "The {x} is there.")
NOUNS = ("These are {xs}.", "Those are {xs}.", "They are {xs}.", "The {xs} are here.", "The {xs} are there.")
TEMPLATES = {
    "thing": (*NOUN, "{a} is a thing.", "It is {a}.", *NOUNS, "{xs} are things."),
    "person": (*NOUN, "{a} is a person.", *NOUNS, "{xs} are people."),
    "mass": ("This is {x}.", "That is {x}.", "There is {x}.", "It is {x}."),
    "adjective": ("This is {x}.", "That is {x}.", "They are {x}."),
    "name": (
        *("This is {x}.", "That is {x}.", "There is {x}.", "Here is {x}."),
        *("{x} is here.", "{x} is there.", "{x} is a person.", "The person's name is {x}."),
    ),
    "subject": ("{x} is here.", "{x} is there.", "Here {x} is.", "There {x} is.", "{x} is a person."),
    "object": ("It is {x}.", "This is {x}.", "That is {x}."),
    "possessive": (
        *("This is {x}.", "That is {x}.", "There is {x}.", "Here is {x}."),
        *("It is {x}.", "{x} is there.", "{x} is here."),
    ),
}
KINDS = {
    "person": "male man boy brother son father uncle grandfather "
    "female woman girl sister daughter mother aunt grandmother",
    "mass": "math algebra geometry calculus poetry art literature science physics chemistry NASA astronomy",
    "adjective": "professional",
    "subject": "he she",
    "object": "him her",
    "possessive": "his hers",
}
PLURALS = {"man": "men", "woman": "women", "child": "children"}


def kind(word: str) -> str:
    """The kind of ``word``: of the list above, a name if it is capitalised, or else a thing."""
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
