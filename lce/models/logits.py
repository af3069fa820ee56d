"""Logits at chosen positions only, without computing the rest of what comes after the last attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lce.models.fast_linear import OneDnnLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AFTER_ATTENTION = (
    *("bert", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "electra", "ernie", "esm"),
    *("layoutlm", "megatron-bert", "mpnet", "mra", "nystromformer", "rembert", "roberta", "roberta-prelayernorm"),
    *("roc_bert", "roformer", "tapas", "xlm-roberta", "xlm-roberta-xl", "yoso"),
)
"""Types whose attention module includes the residual connection, so that nothing after it mixes positions."""

AFTER_BASE_MODEL = (
    *("albert", "bart", "big_bird", "distilbert", "esmc", "eurobert", "flaubert", "fnet", "funnel", "gte", "ibert"),
    *("jina_embeddings_v3", "longformer", "luke", "mbart", "mobilebert", "modernbert", "mvp", "nomic_bert"),
    *("reformer", "squeezebert", "ultrabert", "xlm", "xmod"),
)
"""Types whose layers need the states at all positions to their end, but whose head does not."""

DECODERS = (
    *("bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox"),
    *("gptj", "granite", "llama", "mistral", "mixtral", "mpt", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2"),
    *("qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2"),
)
"""Types of causal models whose head works on each position alone."""

ROWS = frozenset(DECODERS) - {"bloom", "falcon", "mpt"}
"""Those of them that take positions and a mask for each pair of tokens; the others make theirs of the padding alone."""

LOGITS = 1 << 24
"""Logits, over all words, that are in memory together while a model is measured."""

KEPT_POSITIONS: ContextVar[Tensor] = ContextVar("KEPT_POSITIONS")
"""Within `gathered`, the flat positions whose states go on."""

LAST_MIXING = {
    **dict.fromkeys(AFTER_ATTENTION, "encoder.layer.{last}.attention"),
    **dict.fromkeys((*AFTER_BASE_MODEL, *DECODERS), ""),
    "opt": "decoder",
}
"""By model type, the last module that mixes positions: its path in the base model, "" for the base model itself.

``{last}`` stands for the number of the last layer.
"""


def logits_at(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
    """Logits at the flat ``positions`` (M,) of a (B, L) batch only: shape (M, vocabulary).

    What follows the last attention works on each position alone: the last layer's feed-forward block, and the head,
    which costs as much as the layers of a small model. Keeping only the asked positions from there on gives the same
    logits and saves the rest, in training too. Of a model that `LAST_MIXING` does not know, all logits are computed;
    and so they are if as many are asked for as one text has tokens: the shape of states tells if they were gathered.
    """
    module = last_mixing_module(model) if input_ids.shape != (1, len(positions)) else None
    with gathered(module, positions) if module is not None else nullcontext(), OneDnnLinear():
        logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask, **without_cache(model)).logits
    return logits.squeeze(0) if module is not None else logits.flatten(0, 1)[positions]


@contextmanager
def gathered(module: nn.Module, positions: Tensor) -> Iterator[None]:
    """Within the block, ``module`` gives its states at the flat ``positions`` (M,) only, as one row: (1, M, width)."""

    def gather(module: nn.Module, arguments: Any, output: Any) -> Any:
        states = output if isinstance(output, Tensor) else output[0]
        kept = states.flatten(0, 1)[positions].unsqueeze(0)
        if isinstance(output, Tensor):
            return kept
        if isinstance(output, tuple):
            return kept, *output[1:]
        output["last_hidden_state"] = kept
        return output

    handle, token = module.register_forward_hook(gather), KEPT_POSITIONS.set(positions)
    try:
        yield
    finally:
        KEPT_POSITIONS.reset(token)
        handle.remove()


def without_cache(model: PreTrainedModel) -> dict[str, bool]:
    """The argument that keeps a decoder from storing keys and values for a text that does not go on."""
    return {"use_cache": False} if getattr(model.config, "use_cache", None) else {}


def last_mixing_module(model: PreTrainedModel) -> nn.Module | None:
    """The last module of ``model`` that mixes positions; None where it is not known.

    A model with code of its own may call itself by the type of another, so only transformers' own classes are known.
    """
    path, base = LAST_MIXING.get(model.config.model_type), model.base_model
    if path is None or base is model or not type(model).__module__.startswith("transformers."):
        return None
    try:
        layers = base.get_submodule(path.partition(".{last}")[0])
        return base.get_submodule(path.format(last=len([*layers.children()]) - 1))
    except AttributeError:
        return None


def takes_rows(model: PreTrainedModel) -> bool:
    """Whether ``model`` is a causal one that takes positions and an attention mask of its own for each row."""
    return model.config.model_type in ROWS and last_mixing_module(model) is not None


def log_probabilities_at(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, places: Tensor, tokens: Tensor, **more: Tensor
) -> Tensor:
    """Natural log-probability of each of the ``tokens`` (n,) at the flat ``places`` (n,) of a (B, L) batch: (n,).

    Of a causal model whose head works on each position alone, the layers' states at these places are computed first,
    and then decoded in chunks, so that never more than `LOGITS` logits are held.

    Args:
        more: further arguments of the model: position_ids.
    """
    layers = last_mixing_module(model) if model.config.model_type in DECODERS else None
    if layers is None:
        logits = logits_at(model, input_ids, attention_mask, places)
        return _log_probabilities(logits, tokens)
    with OneDnnLinear():
        output = layers(
            input_ids=input_ids, attention_mask=attention_mask, **more, **without_cache(model), return_dict=True
        )
    distinct, at = places.unique(return_inverse=True)
    states = output.last_hidden_state.flatten(0, 1)[distinct]
    found = torch.empty(len(places), device=states.device)
    step = max(1, LOGITS // model.config.vocab_size)
    for start in range(0, len(distinct), step):
        here = ((at >= start) & (at < start + step)).nonzero().flatten()
        logits = head(model, layers, output, states[start : start + step])
        found[here] = _log_probabilities(logits, tokens[here], at[here] - start)
    return found


def _log_probabilities(logits: Tensor, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
    """log-softmax of the ``logits`` at one token of each row, or of each of ``rows`` (n,)."""
    rows = torch.arange(len(tokens), device=logits.device) if rows is None else rows
    return logits.float().log_softmax(-1)[rows, tokens]


def head(model: PreTrainedModel, layers: nn.Module, output: Any, states: Tensor) -> Tensor:
    """The logits (n, vocabulary) that ``model`` makes of final ``states`` (n, width).

    Args:
        layers: the module before the head.
        output: something that it put out, in which the states are replaced.
    """
    given = type(output)(**{**output, "last_hidden_state": states.unsqueeze(0)})
    layers.forward = lambda *_, **__: given
    try:
        with OneDnnLinear():
            logits: Tensor = model(input_ids=torch.zeros(1, len(states), dtype=torch.long, device=states.device)).logits
    finally:
        del layers.forward
    return logits.squeeze(0)
