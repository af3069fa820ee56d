"""The model card of a patched checkpoint, as the Hugging Face hub shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader

from lce.foundations.paths import shipped
from lce.patch.text import plain, provenance_rows, score_rows

if TYPE_CHECKING:
    from lce.patch.format import Patch

CARD = "README.md"
MARK = "Written by `lce patch apply`"
INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag", "datasets")


def stack_card(folder: Path, patch: Patch, base: str) -> None:
    """Write a card into ``folder``, the ``base`` with ``patch`` applied: what was edited, and what it risks.

    The card that was there, the base's, becomes README.base.md, one that was there under that name README.base.base.md.
    """
    depth = 0
    while (folder / _card(depth)).exists():
        depth += 1
    for i in reversed(range(depth)):
        (folder / _card(i)).rename(folder / _card(i + 1))
    _write_card(folder, patch, base)


def unstack_card(folder: Path) -> None:
    """Put the base's own card back in the place of that of a patch."""
    card = folder / CARD
    if card.exists() and MARK in card.read_text(encoding="utf-8", errors="replace"):
        card.unlink()
        depth = 1
        while (folder / _card(depth)).exists():
            (folder / _card(depth)).rename(folder / _card(depth - 1))
            depth += 1


def _card(depth: int) -> str:
    return f"README{'.base' * depth}.md"


def _write_card(folder: Path, patch: Patch, base: str) -> None:
    is_local = shipped(base).exists()
    name = shipped(base).resolve().name if is_local else base
    known = _metadata(folder / _card(1))
    metadata = {
        "base_model": name,
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "tags": ["lce", "model-editing", "bias"],
        **{key: known[key] for key in INHERITED if key in known},
    }
    environment = Environment(
        loader=PackageLoader("lce", "patch"), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = environment.get_template("card.md").render(
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        base=f"`{_cell(name)}`" if is_local else f"[{base}](https://huggingface.co/{base})",
        name=_cell(name),
        mark=MARK,
        count=f"{patch.count:,}",
        parameters=len(patch.parameters),
        fingerprint=patch.base_fingerprint,
        provenance=[(_cell(key), _cell(value)) for key, value in provenance_rows(patch.provenance)],
        scores=[tuple(map(_cell, row)) for row in score_rows(patch.provenance)],
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def _metadata(card: Path) -> dict[str, Any]:
    """The YAML between dashes with which a card begins; empty if there is none that can be read."""
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    found = re.match(r"---\s*\n(.*?)\n---\s*\n", text, re.DOTALL)
    try:
        content = yaml.safe_load(found[1]) if found else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _cell(text: str) -> str:
    """Text that stays what it is in a cell of a Markdown table: no markup, links or images."""
    return plain(text).translate(str.maketrans("`|<>[]*", "'¦‹›()·"))
