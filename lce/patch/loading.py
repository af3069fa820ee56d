"""A patched model in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lce.errors import LceError
from lce.patch.format import Patch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


HUB_OPTIONS = ("cache_dir", "local_files_only", "revision", "subfolder", "token", "trust_remote_code")


def from_pretrained(base: str | Path, patch: str | Path, **options: Any) -> PreTrainedModel:
    """The model ``base`` of plain transformers, in the class its configuration names, with ``patch`` applied.

    Args:
        base: folder, or name on the Hugging Face hub.
        patch: patch file.
        options: handed to the class's ``from_pretrained``. A ``dtype`` other than the checkpoint's is taken on after
            the patch, which fits the checkpoint's numbers only.

    Raises:
        LceError: the model cannot be loaded, or is not the patch's base.
    """
    import transformers

    loaded = Patch.load(patch)
    dtype = options.pop("dtype", "auto")
    try:
        of_hub = {key: options[key] for key in HUB_OPTIONS if key in options}
        config = transformers.AutoConfig.from_pretrained(base, **of_hub)
        model: PreTrainedModel = model_class(config).from_pretrained(base, dtype="auto", **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise LceError(f"model {base}: cannot be loaded ({' '.join(str(error).split())})") from error
    loaded.apply_(model)
    return model if dtype == "auto" else model.to(dtype)


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of transformers that a configuration names; LceError if there is none of this name."""
    import transformers

    (architecture, *_) = config.architectures or [""]
    found = getattr(transformers, architecture, None)
    if found is None:
        raise LceError(f"transformers has no class {architecture!r}, which the model's configuration names")
    known: type[PreTrainedModel] = found
    return known
