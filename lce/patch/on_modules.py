"""Patches on models in memory."""

import numpy as np
from torch import Tensor, nn

from lce.patch.carry_out import Which
from lce.patch.check import check
from lce.patch.readers import ModuleReader
from lce.patch.stored_changes import StoredChanges
from lce.storage.changes import Change, write_at_
from lce.storage.torch_bridge import to_torch


def put_in_(changes: StoredChanges, model: nn.Module, which: Which) -> None:
    """Write the ``which`` values of a patch into ``model``, in place.

    Raises:
        LceError: as `check`; nothing is written then.
    """
    for name, entry in check(changes, ModuleReader(model), which).items():
        change = in_torch(changes, name)
        write_at_(entry.tensor, change.indices, getattr(change, which))


def in_torch(changes: StoredChanges, name: str) -> Change[Tensor]:
    """The change of parameter ``name`` as torch's tensors."""
    code = changes.parameters[name].dtype
    return changes[name].each(lambda part: to_torch(part, "I64" if part.dtype == np.int64 else code))
