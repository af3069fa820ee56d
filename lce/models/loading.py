"""Opening a model that others made: from its folder alone, nothing unpickled, no code of its own run unasked.

A model's files are not to be trusted: a configuration may ask for a thousand times the weights that lie beside it, a
tokenizer may name tokens that it does not have. What does not fit is refused in one line, before memory is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from lce.storage.checkpoint import CONFIG, weight_files
from lce.foundations.errors import LceError
from lce.foundations.files import read_json
from lce.storage.hub import resolve
from lce.foundations.logs import hide_weight_bars
from lce.foundations.signals import Stopped
from lce.storage.safetensors_file import read_header

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter_config.json"
COUNTS = re.compile(r"(layers?|depth|groups?|heads?|labels?|blocks?|experts?)$")
"""Keys of a configuration by which transformers makes so many of something, before there is any tensor to check."""
MOST = 1 << 20
LARGEST_BUFFER = 1 << 26
"""Entries of what a model makes itself and files do not hold: a causal mask of 8,192 positions."""
KINDS = {
    "CausalLM": "a causal language model",
    "LMHeadModel": "a causal language model",
    "ConditionalGeneration": "a sequence-to-sequence model",
}
"""What a model is by the end of its class's name, where people call it differently."""
PROBE = "She is here, isn't she? Ünï-\u4e2d\u6587 \u2603\U0001f600 x1y2 qzxj"
"""Words, accents, signs and letters that few tokenizers know: what most ways to split a text come across."""


@contextmanager
def refusing(title: str, folder: Path | None = None, trust_remote_code: bool = True) -> Iterator[None]:
    """Turns whatever goes wrong in the block into one line about the model ``title``.

    Raises:
        LceError: anything was raised. If the model in ``folder`` has code of its own, not ``trust_remote_code`` is
            taken for the reason.
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


def has_code(folder: Path) -> bool:
    """Whether the model in ``folder`` names classes of its own for itself, or for its tokenizer."""
    files = [folder / CONFIG, folder / "tokenizer_config.json"]
    contents = [read_json(file) for file in files if file.is_file()]
    return any(isinstance(content, dict) and content.get("auto_map") for content in contents)


def open_masked_lm(name: str | Path, trust_remote_code: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `lce.models.load_masked_lm`, but for what only computing with the model shows."""
    from transformers import AutoModelForMaskedLM

    folder, config = read_config(name, trust_remote_code)
    check_is_masked(name, config)
    # How results come, not what they are; chunks fail on lengths that they do not divide.
    for key, value in (("return_dict", True), ("chunk_size_feed_forward", 0)):
        if getattr(config, key, value) != value:
            setattr(config, key, value)
    tokenizer = load_tokenizer(name, folder, trust_remote_code)
    options = {"dtype": torch.float32, "trust_remote_code": trust_remote_code}
    model, missing = load_weights(AutoModelForMaskedLM, name, folder, config, **options)
    if missing:
        raise LceError(f"model {name}: is no masked language model; its checkpoint lacks {', '.join(missing[:3])}")
    check_tokenizer(name, tokenizer, model)
    return model, tokenizer


def read_config(
    name: str | Path, trust_remote_code: bool = False, subfolder: str = ".", **hub: Any
) -> tuple[Path, PreTrainedConfig]:
    """The folder of the model ``name`` and its configuration; ``hub`` is handed to `lce.hub.resolve`.

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
        elif COUNTS.search(key) and isinstance(value, int | float) and not abs(value) <= MOST:
            raise LceError(f"{folder / CONFIG}: {key} is {value:g}; no model has so many")


def named_class(config: PreTrainedConfig) -> str:
    """The first class that a configuration names as the model's; "" if it names none."""
    names = config.architectures
    return str(names[0]) if isinstance(names, list | tuple) and names else ""


def own_classes(config: PreTrainedConfig) -> dict[str, str]:
    """The classes in the code that comes with a model, by the class of transformers that they stand for."""
    named = getattr(config, "auto_map", None)
    return {str(auto): str(own) for auto, own in named.items()} if isinstance(named, dict) else {}


def check_is_masked(name: str | Path, config: PreTrainedConfig) -> None:
    """Raises LceError if the configuration says that the model is none that predicts masked words."""
    from transformers.models.auto import modeling_auto as known

    masked = known.MODEL_FOR_MASKED_LM_MAPPING_NAMES.get(config.model_type)
    if "AutoModelForMaskedLM" in own_classes(config):
        return
    others = (known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    guesses = [table[config.model_type] for table in others if config.model_type in table]
    architecture = named_class(config) or masked or (guesses or [type(config).__name__])[0]
    found = re.search(r"(LMHeadModel|(?<=For)[A-Z]\w*)$", architecture)
    task = found[0] if found else ""
    if masked and (architecture == masked or task in ("", "MaskedLM", "PreTraining")):
        return
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", task).lower()
    kind = KINDS.get(task, f"a model for {words}" if words else "another kind of model")
    raise LceError(f"model {name}: is {kind} ({architecture}); this command needs a masked language model")


def load_weights(
    auto: Any, name: str | Path, folder: Path, config: PreTrainedConfig, **options: Any
) -> tuple[Any, list[str]]:
    """What ``auto``'s from_pretrained makes of the safetensors in ``folder`` and of ``config``.

    The second value are the names of parameters that the files do not hold.

    Raises:
        LceError: there are no such files, they are damaged, or do not fit the configuration.
    """
    safely = {"use_safetensors": True, "local_files_only": True, "ignore_mismatched_sizes": True}
    hide_weight_bars()
    with fitting(name, folder), refusing(f"model {name}", folder, bool(options.get("trust_remote_code"))):
        model, info = auto.from_pretrained(folder, config=config, output_loading_info=True, **safely, **options)
    for key, stored, wanted in sorted(info["mismatched_keys"]):
        shapes = f"{tuple(stored)} in its files, {tuple(wanted)} by its configuration"
        raise LceError(f"model {name}: {key} has the shape {shapes}")
    return model, sorted(info["missing_keys"])


@contextmanager
def fitting(name: str | Path, folder: Path) -> Iterator[None]:
    """Within the block, a model that is made must not be larger than the weights in ``folder``.

    transformers makes its modules without memory for their tensors before it reads any, so that this is in time.

    Raises:
        LceError: it asks for so many more that they cannot be its own, or there are no such weights.
    """
    entries = [entry for path in weight_files(folder) for entry in read_header(path)[1].values()]
    stored = sum(entry.size for entry in entries)
    made: dict[tuple[int, str], int] = {}
    total = 0

    def refuse() -> None:
        raise LceError(f"model {name}: its configuration asks for more than the {stored:,} weights in its files")

    def count(owner: nn.Module, key: str, parameter: Tensor | None) -> None:
        nonlocal total
        size = 0 if parameter is None else parameter.numel()
        total += size - made.get((id(owner), key), 0)
        made[id(owner), key] = size
        if len(made) > 4 * len(entries) + 256 or total > 4 * stored + MOST:  # tied weights may be stored once
            refuse()

    def measure(owner: nn.Module, key: str, buffer: Tensor | None) -> None:
        if buffer is not None and buffer.numel() > max(stored, LARGEST_BUFFER):
            refuse()

    hooks = [
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(measure),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def load_tokenizer(name: str | Path, folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The fast tokenizer in ``folder``, which has a mask token and can split a text.

    Raises:
        LceError: it cannot.
    """
    from transformers import AutoTokenizer

    title = f"model {name}"
    with refusing(title, folder, trust_remote_code):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    if tokenizer.mask_token_id is None:
        raise LceError(f"{title}: its tokenizer has no mask token; a masked language model needs one")
    if not tokenizer.is_fast:
        raise LceError(f"{title}: its tokenizer gives no character offsets; a fast tokenizer is needed")
    if tokenizer.pad_token_id is None:
        raise LceError(f"{title}: its tokenizer has no padding token")
    return tokenizer


def check_tokenizer(name: str | Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Raises LceError unless each token has its place in the ``model``, and a text with a mask can be split."""
    title = f"model {name}"
    vocabulary = getattr(model.get_input_embeddings(), "num_embeddings", model.config.vocab_size)
    if len(tokenizer) > vocabulary:
        raise LceError(f"{title}: its tokenizer has {len(tokenizer):,} tokens, the model only {vocabulary:,}")
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or not limit >= 4:
        raise LceError(f"{title}: its tokenizer takes {limit!r} tokens; expected a number, at least 4")
    mask = tokenizer.mask_token
    with refusing(f"{title}: its tokenizer"):
        ids = tokenizer([PROBE, f"{mask} {mask}"], truncation=True, max_length=64, return_offsets_mapping=True)
        texts = ids["input_ids"]
        largest = max([*tokenizer.get_vocab().values(), *(one for text in texts for one in text)])
    if largest >= vocabulary:
        raise LceError(f"{title}: its tokenizer has a token with the number {largest:,}, the model only {vocabulary:,}")
    if texts[1].count(tokenizer.mask_token_id) != 2:
        raise LceError(f"{title}: its tokenizer does not find its own mask token {mask!r} in a text")
