"""Logits at chosen positions only, without computing the rest of what comes after the last attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

LAST_MIXING = {
    **dict.fromkeys(AFTER_ATTENTION, "encoder.layer.{last}.attention"),
    **dict.fromkeys(AFTER_BASE_MODEL, ""),
}
"""By model type, the last module that mixes positions: its path in the base model, "" for the base model itself.

``{last}`` stands for the number of the last layer.
"""


def masked_logits(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
    """Logits at the flat ``positions`` (M,) of a (B, L) batch only: shape (M, vocabulary).

    What follows the last attention works on each position alone: the last layer's feed-forward block, and the head,
    which costs as much as the layers of a small encoder. Keeping only the asked positions from there on gives the
    same logits and saves the rest, in training too. Of a model that `LAST_MIXING` does not know, all logits are
    computed.
    """

    def gather(module: nn.Module, arguments: Any, output: Any) -> Any:
        states = output if isinstance(output, Tensor) else output[0]
        kept = states.flatten(0, 1)[positions].unsqueeze(0)
        if isinstance(output, Tensor):
            return kept
        if isinstance(output, tuple):
            return kept, *output[1:]
        output["last_hidden_state"] = kept
        return output

    module = last_mixing_module(model)
    handle = module.register_forward_hook(gather) if module is not None else None
    try:
        with OneDnnLinear():
            logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask).logits
    finally:
        if handle:
            handle.remove()
    return logits.squeeze(0) if handle else logits.flatten(0, 1)[positions]


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
