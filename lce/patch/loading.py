"""A patched model in one call."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lce.foundations.errors import LceError
from lce.models.kinds import named_class, own_classes, read_config, refusing
from lce.models.loading import load_weights
from lce.patch.format import Patch
from lce.patch.hooks import HookPatch
from lce.patch.record import is_hook_patch
from lce.storage.checkpoint import weight_files
from lce.storage.safetensors_file import read_header
from lce.storage.torch_bridge import DTYPES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


HUB_OPTIONS = ("cache_dir", "local_files_only", "revision", "token")


def from_pretrained(base: str | Path, patch: str | Path, **options: Any) -> PreTrainedModel:
    """The model ``base`` of plain transformers, in the class its configuration names, with ``patch`` applied.

    A patch of features or of a direction is applied by a hook, which a copy of the model keeps, and ``save_pretrained``
    does not.

    Args:
        base: folder, or name on the Hugging Face hub.
        patch: patch file.
        options: handed to the class's ``from_pretrained``. A ``dtype`` other than the checkpoint's is taken on after
            the patch, which fits the checkpoint's numbers only. Code that comes with the model runs with
            ``trust_remote_code=True`` alone.

    Raises:
        LceError: the model cannot be loaded, or is not the patch's base.
    """
    loaded = HookPatch.load(patch) if is_hook_patch(patch) else Patch.load(patch)
    dtype = float_type(options.pop("dtype", options.pop("torch_dtype", None)))
    patched = load_model(base, **options)
    loaded.apply_(patched)
    if dtype is not None:
        for parameter in patched.parameters():  # and no buffers, such as those of positions: as in transformers
            parameter.data = parameter.data.to(dtype)
        patched.config.dtype = dtype
    return patched


def load_model(base: str | Path, **options: Any) -> PreTrainedModel:
    """The model ``base`` in the class its configuration names, its weights of the type that they are stored in.

    Raises:
        LceError: it cannot be loaded.
    """
    of_hub = {key: value for key in HUB_OPTIONS if (value := options.pop(key, None)) is not None}
    options.pop("use_safetensors", None)  # nothing else is loaded
    trusts = bool(options.pop("trust_remote_code", False))
    subfolder = options.pop("subfolder", None) or "."
    folder, config = read_config(base, trusts, subfolder=subfolder, **of_hub)
    kind = model_class(config, folder if trusts else None)
    dtype = stored_type(folder)
    model, _ = load_weights(kind, base, folder, config, dtype=dtype, trust_remote_code=trusts, **options)
    loaded: PreTrainedModel = model
    return loaded


def stored_type(folder: Path) -> torch.dtype | str:
    """The type of most weights in the files of ``folder``, whatever its configuration says; "auto" if it is none of
    the usual ones.
    """
    weights: Counter[str] = Counter()
    for entry in (entry for path in weight_files(folder) for entry in read_header(path)[1].values()):
        weights[entry.code] += entry.size
    found = DTYPES[weights.most_common(1)[0][0]] if weights else torch.float32
    return found if found.is_floating_point and found.itemsize > 1 else "auto"


def float_type(name: Any) -> torch.dtype | None:
    """The type of numbers that ``name`` stands for, as in transformers; None for the checkpoint's own.

    Raises:
        LceError: it stands for none.
    """
    if name in (None, "auto"):
        return None
    found = getattr(torch, name.removeprefix("torch."), None) if isinstance(name, str) else name
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise LceError(f'dtype: expected "auto" or a type of floating-point numbers, such as "float16"; got {name!r}')
    return found


def model_class(config: PreTrainedConfig, trusted: Path | None = None) -> type[PreTrainedModel]:
    """The class that a configuration names: of transformers, or of the code in the ``trusted`` folder.

    Raises:
        LceError: there is no such class.
    """
    import transformers
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    architecture = named_class(config)
    of_code = [own for own in own_classes(config).values() if own.rpartition(".")[2] == architecture]
    if trusted and of_code:
        with refusing(f"model {trusted}"):
            custom: type[PreTrainedModel] = get_class_from_dynamic_module(of_code[0], trusted, local_files_only=True)
        return custom
    found = getattr(transformers, architecture, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        if of_code:
            raise LceError(f"{architecture}: is code of the model's own, which is run only with trust_remote_code=True")
        raise LceError(f"transformers has no class {architecture!r}, which the model's configuration names")
    return found
