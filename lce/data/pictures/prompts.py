"""Prompts: templates with a name filled in."""

import re


def filled(template: str, name: str) -> str:
    """The ``template`` with a ``name``; "a" before it becomes "an" before a vowel."""
    if name[:1].lower() in "aeiou":
        template = re.sub(r"\b([aA]) \{\}", r"\1n {}", template)
    return template.replace("{}", name)
