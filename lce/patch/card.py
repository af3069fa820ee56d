"""The model card of a patched checkpoint, as the Hugging Face hub shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader

from lce.patch.text import plain, provenance_rows, score_rows

if TYPE_CHECKING:
    from lce.patch.format import Patch

CARD = "README.md"
BASE_CARD = "README.base.md"
"""Where the base's own card goes; a revert puts it back."""
INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag", "datasets")


def write_card(folder: Path, patch: Patch, base: str) -> None:
    """Write a card into ``folder``, the ``base`` with ``patch`` applied: what was edited, and what it risks."""
    is_local = Path(base).exists()
    name = Path(base).resolve().name if is_local else base
    known = _metadata(folder / BASE_CARD)
    metadata = {
        "base_model": name,
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "tags": ["lce", "model-editing", "bias"],
        **{key: known[key] for key in INHERITED if key in known},
    }
    environment = Environment(loader=PackageLoader("lce", "patch"), trim_blocks=True, lstrip_blocks=True)
    text = environment.get_template("card.md").render(
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        base=_cell(plain(name)),
        link=None if is_local else f"https://huggingface.co/{base}",
        count=f"{patch.count:,}",
        parameters=len(patch.parameters),
        fingerprint=patch.base_fingerprint,
        provenance=[(_cell(key), _cell(value)) for key, value in provenance_rows(patch.provenance)],
        scores=[tuple(map(_cell, row)) for row in score_rows(patch.provenance)],
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def _metadata(card: Path) -> dict[str, Any]:
    """The YAML between dashes with which a card begins; empty if there is none that can be read."""
    found = re.match(r"---\s*\n(.*?)\n---\s*\n", card.read_text(encoding="utf-8"), re.DOTALL) if card.exists() else None
    try:
        content = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _cell(text: str) -> str:
    """Text that stays within its cell of a Markdown table."""
    return text.replace("`", "'").replace("|", "¦").replace("<", "‹")
