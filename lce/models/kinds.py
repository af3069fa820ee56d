"""What kind of model a folder holds, by its configuration alone: read, checked, and refused in one line if need be.

Everything that opens a model begins here, before any of its weights or code is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lce.config import Kind
from lce.foundations.errors import LceError
from lce.foundations.files import read_json
from lce.foundations.signals import Stopped
from lce.storage.checkpoint import CONFIG
from lce.storage.hub import resolve

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ADAPTER = "adapter_config.json"
"""Configuration of an adapter, which holds no model of its own."""

COUNTS = re.compile(r"(layers?|depth|groups?|heads?|labels?|blocks?|experts?)$")
"""Keys of a configuration by which transformers makes so many of something, before there is any tensor to check."""

LARGEST_COUNT = 1 << 20
"""No model has more layers, heads or the like."""

OTHERS = {"ConditionalGeneration": "a sequence-to-sequence model"}
"""What a model is by the end of its class's name, where people call it differently."""


def read_config(
    name: str | Path, trust_remote_code: bool = False, subfolder: str = ".", **hub: Any
) -> tuple[Path, PreTrainedConfig]:
    """The folder of the model ``name`` and its configuration; ``hub`` is handed to `lce.storage.hub.resolve`.

    Raises:
        LceError: there is no such model, or its configuration cannot be used.
    """
    from transformers import AutoConfig

    folder = resolve(name, **hub) / subfolder
    if not (folder / CONFIG).exists():
        raise LceError(f"model {name}: cannot be loaded; {folder} holds no {CONFIG}")
    raw = read_json(folder / CONFIG)
    if not isinstance(raw, dict):
        raise LceError(f"{folder / CONFIG}: expected a mapping, got {type(raw).__name__}")
    _check_counts(folder, raw)
    if (folder / ADAPTER).exists() or raw.get("transformers_weights"):
        raise LceError(f"model {name}: is an adapter, or names other weights than its own; merge them into one model")
    with refusing(f"model {name}", folder, trust_remote_code):
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    return folder, config


def _check_counts(folder: Path, content: Any) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            _check_counts(folder, value)
        elif COUNTS.search(key) and isinstance(value, int | float) and not abs(value) <= LARGEST_COUNT:
            raise LceError(f"{folder / CONFIG}: {key} is {value:g}; no model has so many")


def kind_of(name: str | Path, config: PreTrainedConfig) -> Kind:
    """Whether the model with this ``config`` is a masked or a causal language model.

    The class that the configuration names decides; where it names none, or one without a head, what transformers has
    for the type, a masked model first.

    Raises:
        LceError: it is neither.
    """
    from transformers.models.auto import modeling_auto as known

    masked = known.MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(config.model_type)
    causal = known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    own = own_classes(config)
    for auto, kind in (("AutoModelForMaskedLM", "masked"), ("AutoModelForCausalLM", "causal")):
        if auto in own:
            return cast(Kind, kind)
    sequences = known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    architecture = named_class(config) or masked or sequences or causal or type(config).__name__
    found = re.search(r"(LMHeadModel|(?<=For)[A-Z]\w*)$", architecture)
    task = found[0] if found else ""
    has_no_head = not task and not named_class(config).endswith(("WithLMHeadModel", "LMHead"))
    if masked and (architecture == masked or task in ("MaskedLM", "PreTraining") or has_no_head):
        return "masked"
    if causal and (architecture == causal or task in ("CausalLM", "LMHeadModel") or (has_no_head and not sequences)):
        return "causal"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", task).lower()
    what = OTHERS.get(task, f"a model for {words}" if words else "another kind of model")
    raise LceError(f"model {name}: is {what} ({architecture}); this needs a masked or a causal language model")


def kind_named(name: str | Path, trust_remote_code: bool = False) -> Kind:
    """The kind of the model ``name``: see `read_config` and `kind_of`."""
    return kind_of(name, read_config(name, trust_remote_code)[1])


def named_class(config: PreTrainedConfig) -> str:
    """The first class that a configuration names as the model's; "" if it names none."""
    names = config.architectures
    return str(names[0]) if isinstance(names, list | tuple) and names else ""


def own_classes(config: PreTrainedConfig) -> dict[str, str]:
    """The classes in the code that comes with a model, by the class of transformers that they stand for."""
    named = getattr(config, "auto_map", None)
    return {str(auto): str(own) for auto, own in named.items()} if isinstance(named, dict) else {}


def has_code(folder: Path) -> bool:
    """Whether the model in ``folder`` names classes of its own for itself, or for its tokenizer."""
    files = [folder / CONFIG, folder / "tokenizer_config.json"]
    contents = [read_json(file) for file in files if file.is_file()]
    return any(isinstance(content, dict) and content.get("auto_map") for content in contents)


@contextmanager
def refusing(title: str, folder: Path | None = None, trust_remote_code: bool = True) -> Iterator[None]:
    """Turn whatever goes wrong in the block into one line about the model ``title``.

    Raises:
        LceError: anything was raised. If the model in ``folder`` has code of its own and ``trust_remote_code`` is
            false, that is given as the reason.
    """
    try:
        yield
    except (LceError, Stopped, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    # The libraries read files that anybody may have written, and end on broken ones with whatever their code happens
    # to raise, a panic of the tokenizers' Rust included, which is no Exception.
    except BaseException as error:
        if not trust_remote_code and folder and has_code(folder):
            raise LceError(
                f"{title}: brings code of its own, which is run only with --trust_remote_code true"
            ) from error
        said = (
            str(error) if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__}: {error}"
        )
        reason = " ".join(said.split()).encode(errors="backslashreplace").decode()
        raise LceError(f"{title}: cannot be loaded ({reason[:300]})") from error
