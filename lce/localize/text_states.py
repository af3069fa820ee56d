"""The states of texts, kept in a file, so that the same model reads the same texts once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lce.foundations.errors import LceError
from lce.foundations.seeds import derive
from lce.localize.lals import Sentence, TextReference, read_reference
from lce.models.identity import model_fingerprint
from lce.models.image_text import ImageText
from lce.storage.torch_bridge import read_file, write_file

log = logging.getLogger(__name__)

FORMAT, VERSION = "lce-text-states", 1


def kept_reference(model: ImageText, sentences: Sequence[Sentence], folder: Path) -> TextReference:
    """What `read_reference` gives, from a file in ``folder`` if the model has read the same sentences before."""
    how = [model_fingerprint(model.model), str(model.model.dtype), model.device.type, *map(repr, sentences)]
    digest = f"{derive(*how):016x}"
    path = folder / f"{digest}.safetensors"
    if path.exists():
        try:
            record, tensors = read_file(path)
            if (record.get("format"), record.get("version")) == (FORMAT, VERSION):
                return TextReference(tensors["states"], tensors["labels"])
        except (LceError, KeyError) as error:
            log.warning("%s: is read anew (%s)", path, error)
    found = read_reference(model, sentences)
    tensors = {"states": found.states, "labels": found.labels}
    write_file(path, tensors, {"format": FORMAT, "version": VERSION, "texts": len(sentences)})
    return found
