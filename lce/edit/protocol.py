"""What every edit can do, whatever it changes in a model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn

    from lce.patch import Patch


class Edit(Protocol):
    """A change to one model, which is tried on it and undone, or kept as a patch."""

    def applied(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the block, ``model`` is edited in place; after it, in any case, it is as it was, bit for bit."""

    def random_baseline(self, seed: int, is_matched: bool = False) -> Edit:
        """The same edit of as many units drawn at random: see `lce.localize.controls.random_baseline`."""

    def patch(self, path: str | Path, provenance: Mapping[str, Any] = ...) -> Patch:
        """Write to ``path`` the patch that makes this edit, which says of itself what ``provenance`` holds."""
