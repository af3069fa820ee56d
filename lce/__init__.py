"""Local contrastive editing: find the few weights that carry a bias, and edit just those."""

from typing import Any

__all__ = ["from_pretrained"]


def __getattr__(name: str) -> Any:
    """Imported when asked for, because it brings torch with it."""
    if name == "from_pretrained":
        from lce.patch.loading import from_pretrained

        return from_pretrained
    raise AttributeError(f"module 'lce' has no attribute {name!r}")
