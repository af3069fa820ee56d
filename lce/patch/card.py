"""The model card of a patched checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lce.patch.text import plain, provenance_rows, score_rows

if TYPE_CHECKING:
    from lce.patch.format import Patch

CARD = "README.md"
BASE_CARD = "README.base.md"
"""Where the base's own card goes; a revert puts it back."""
TEMPLATE = Path(__file__).with_name("card.md")
INHERITED = ("license", "license_name", "license_link", "language", "pipeline_tag", "datasets")


def write_card(folder: Path, patch: Patch, base: str) -> None:
    """Write a card into ``folder``, the ``base`` with ``patch`` applied: what was edited, and what it risks."""
    from huggingface_hub import ModelCard, ModelCardData
    from huggingface_hub.repocard import metadata_load

    known = (metadata_load(folder / BASE_CARD) if (folder / BASE_CARD).exists() else None) or {}
    is_local = Path(base).exists()
    name = Path(base).resolve().name if is_local else base
    data = ModelCardData(
        base_model=name,
        base_model_relation="finetune",
        library_name="transformers",
        tags=["lce", "model-editing", "bias"],
        **{key: known[key] for key in INHERITED if key in known},
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        base=plain(name),
        link=None if is_local else f"https://huggingface.co/{base}",
        count=f"{patch.count:,}",
        parameters=len(patch.parameters),
        fingerprint=patch.base_fingerprint,
        provenance=[(cell(key), cell(value)) for key, value in provenance_rows(patch.provenance)],
        scores=[tuple(map(cell, row)) for row in score_rows(patch.provenance)],
    )
    (folder / CARD).write_text(str(card), encoding="utf-8")


def cell(text: str) -> str:
    """Text that stays within its cell of a Markdown table."""
    return text.replace("`", "'").replace("|", "¦").replace("<", "‹")
