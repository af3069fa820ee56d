"""Checkpoints within a round: written whole or not at all, and read only if they are whole."""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lce.foundations.atomic_files import replaced_file
from lce.foundations.errors import LceError
from lce.foundations.paths import DAMAGED
from lce.foundations.ranks import rank

log = logging.getLogger(__name__)
CHECKPOINTS, LAST = "checkpoints", "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it.

    Lightning's own way goes over the system's folder for temporary files; from another file system, that ends in a copy
    onto the last good checkpoint, which a kill or a full disk leaves half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with replaced_file(path) as temporary, temporary.open("wb") as file:
            torch.save(checkpoint, file)


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint in ``folder`` from which a training resumes; None if there is none that can be read.

    One that is damaged is put aside: the round starts anew.

    Raises:
        LceError: it cannot be read for another reason.
    """
    path = folder / LAST
    if not path.is_file():  # sharded ones are folders, of which torch takes care
        return path if path.exists() else None
    try:
        with zipfile.ZipFile(path) as content:
            if damaged := content.testzip():
                raise ValueError(f"{damaged} is damaged")
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, MemoryError) as error:
        raise LceError(f"{path}: cannot be read now ({error or 'no memory'}); the same command tries again") from error
    except Exception as error:  # of many kinds, whatever damaged the file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        log.warning("%s: cannot be read (%s); this round starts anew", path, reason)
        if rank() == 0:
            path.replace(path.with_suffix(DAMAGED))
        return None
    return path
