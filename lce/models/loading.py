"""Opening a model that others made: from its folder alone, nothing unpickled, its own code run only on request.

A model's files are not to be trusted: a configuration may ask for a thousand times the weights that are stored with it,
a tokenizer may name tokens that it does not have. What does not fit is refused in one line, before memory is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from lce.config import Kind
from lce.foundations.errors import LceError
from lce.foundations.logs import hide_weight_bars
from lce.foundations.memory import keep_freed_memory
from lce.models.kinds import kind_of, read_config, refusing
from lce.models.logits import logits_at
from lce.storage.checkpoint import weight_files
from lce.storage.safetensors_file import read_header

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LARGEST_BUFFER = 1 << 26
"""Entries of what a model makes itself and files do not hold: a causal mask of 8,192 positions."""

ALWAYS_ALLOWED = 1 << 20
"""Weights that a configuration may ask for however few its files hold."""

PROBE = "She is here, isn't she? Ünï-\u4e2d\u6587 \u2603\U0001f600 x1y2 qzxj"
"""A text to try a tokenizer on: words, accents, signs, and letters that few tokenizers know."""


def load_language_model(
    name: str | Path, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked or causal language model in float32 and its tokenizer, from a folder or by its name on the hub.

    The tokenizer's ``model_max_length`` is at most what the model takes.

    Args:
        trust_remote_code: run code that comes with the model, if it needs any.

    Raises:
        LceError: nothing of this name can be loaded, it is neither kind of language model, its tokenizer is not a fast
            one, or, of a masked model, has no mask token, or its configuration, weights and vocabulary do not fit each
            other.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    folder, config = read_config(name, trust_remote_code)
    kind = kind_of(name, config)
    # How results come, not what they are; chunks fail on lengths that they do not divide.
    for key, value in (("return_dict", True), ("chunk_size_feed_forward", 0)):
        if getattr(config, key, value) != value:
            setattr(config, key, value)
    tokenizer = load_tokenizer(name, folder, kind, trust_remote_code)
    options = {"dtype": torch.float32, "trust_remote_code": trust_remote_code}
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
    model, missing = load_weights(auto, name, folder, config, **options)
    if missing:
        raise LceError(f"model {name}: is no {kind} language model; its checkpoint lacks {', '.join(missing[:3])}")
    check_tokenizer(name, tokenizer, model)
    with refusing(f"model {name}"), torch.no_grad():  # some models fail only when they compute
        tokenizer.model_max_length = int(min(tokenizer.model_max_length, longest_input(model)))
        ids, attention = torch.arange(12).view(2, 6), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
        places = torch.tensor([1, 4, 5])
        found = logits_at(model, ids % model.config.vocab_size, attention, places)
        if kind == "causal":
            ids[0, 5] += 7
            changed = (logits_at(model, ids % model.config.vocab_size, attention, places) - found).abs().amax(1)
            if changed[:2].max() > 1e-4 * changed[2]:
                raise LceError(f"model {name}: is no causal language model; what it predicts depends on later tokens")
    return model, tokenizer


def longest_input(model: PreTrainedModel) -> int:
    """The number of tokens that ``model`` takes, special ones included.

    RoBERTa and its relatives start to count positions after the padding's, so they take fewer than their configuration
    says.
    """
    positions = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    reserved = positions.padding_idx if isinstance(positions, nn.Embedding) else None
    longest: int = getattr(model.config, "max_position_embeddings", 0) or 10**9
    return longest if reserved is None else longest - reserved - 1


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
    keep_freed_memory()
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
        if len(made) > 4 * len(entries) + 256 or total > 4 * stored + ALWAYS_ALLOWED:  # tied weights may be stored once
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


def load_tokenizer(
    name: str | Path, folder: Path, kind: Kind | None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The fast tokenizer in ``folder`` of a model of this ``kind``, None for any other, which can split a text.

    Raises:
        LceError: it cannot.
    """
    from transformers import AutoTokenizer

    title = f"model {name}"
    if not any(True for pattern in ("*token*", "vocab*", "*.model") for _ in folder.glob(pattern)):
        raise LceError(f"{title}: has no tokenizer")  # transformers would make an empty one
    with refusing(title, folder, trust_remote_code):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise LceError(f"{title}: its tokenizer has no mask token; a masked language model needs one")
    if not tokenizer.is_fast:
        raise LceError(f"{title}: its tokenizer gives no character offsets; a fast tokenizer is needed")
    if kind == "masked" and tokenizer.pad_token_id is None:
        raise LceError(f"{title}: its tokenizer has no padding token")
    return tokenizer


def without_bounds(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The same tokenizer, to be saved: without truncation and padding of its last call, which its files would keep."""
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_truncation()
        backend.no_padding()
    for key in ("max_length", "stride", "truncation_strategy"):
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def check_tokenizer(name: str | Path, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Raises LceError unless each token has its place in the ``model``, and a text, with a mask if there is one, can be
    split.
    """
    title = f"model {name}"
    vocabulary = getattr(model.get_input_embeddings(), "num_embeddings", model.config.vocab_size)
    if len(tokenizer) > vocabulary:
        raise LceError(f"{title}: its tokenizer has {len(tokenizer):,} tokens, the model only {vocabulary:,}")
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or not limit >= 4:
        raise LceError(f"{title}: its tokenizer takes {limit!r} tokens; expected a number, at least 4")
    mask = tokenizer.mask_token or ""
    with refusing(f"{title}: its tokenizer"):
        ids = tokenizer([PROBE, f"{mask} {mask}"], truncation=True, max_length=64, return_offsets_mapping=True)
        texts = ids["input_ids"]
        largest = max([*tokenizer.get_vocab().values(), *(one for text in texts for one in text)])
    if largest >= vocabulary:
        raise LceError(f"{title}: its tokenizer has a token with the number {largest:,}, the model only {vocabulary:,}")
    if mask and texts[1].count(tokenizer.mask_token_id) != 2:
        raise LceError(f"{title}: its tokenizer does not find its own mask token {mask!r} in a text")
