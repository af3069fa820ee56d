"""Logits at chosen positions only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lce.models.fast_linear import OneDnnLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def masked_logits(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, positions: Tensor) -> Tensor:
    """Logits at the flat ``positions`` (M,) of a (B, L) batch only: shape (M, vocabulary).

    What follows the last attention works on each position alone: the last layer's feed-forward block, and the head,
    which costs as much as the layers of a small encoder. Keeping only the asked positions from there on gives the
    same logits and saves the rest, in training too.
    """
    if model not in _GATHERED_AFTER:
        _GATHERED_AFTER[model] = _latest_mixing_of_positions(model)
    return _logits_at(model, _GATHERED_AFTER[model], input_ids, attention_mask, positions)


_GATHERED_AFTER: WeakKeyDictionary[PreTrainedModel, str | None] = WeakKeyDictionary()
"""Per model, the module behind which only the asked positions go on; None if only the logits can be gathered."""


def _logits_at(
    model: PreTrainedModel, module: str | None, input_ids: Tensor, attention_mask: Tensor, positions: Tensor
) -> Tensor:
    """As `masked_logits`, keeping the asked positions behind ``module``, or (None) those of the logits."""

    def gather(module: nn.Module, arguments: Any, output: Any) -> Any:
        states = output if isinstance(output, Tensor) else output[0]
        kept = states.flatten(0, 1)[positions].unsqueeze(0)
        if isinstance(output, Tensor):
            return kept
        if isinstance(output, tuple):
            return kept, *output[1:]
        output["last_hidden_state"] = kept
        return output

    handle = model.get_submodule(module).register_forward_hook(gather) if module else None
    try:
        with OneDnnLinear():
            logits: Tensor = model(input_ids=input_ids, attention_mask=attention_mask).logits
    finally:
        if handle:
            handle.remove()
    return logits.squeeze(0) if handle else logits.flatten(0, 1)[positions]


def _latest_mixing_of_positions(model: PreTrainedModel) -> str | None:
    """The latest module after which each position goes its own way: last attention, encoder, or (None) neither.

    Architectures differ in what they do with the output of a module, so each choice is tried on a small batch, and
    taken if the logits are those of the whole model.
    """
    layers = f"{model.base_model_prefix}.encoder.layer"
    modules = dict(model.named_modules())
    last = next((f"{layers}.{i}.attention" for i in range(999, -1, -1) if f"{layers}.{i}" in modules), None)
    input_ids, attention_mask, positions = _two_sentences(model)
    tolerance = 1e-4 if model.dtype == torch.float32 else 3e-2
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            whole = _logits_at(model, None, input_ids, attention_mask, positions)
            for module in (last, model.base_model_prefix):
                if module not in modules:
                    continue
                try:
                    found = _logits_at(model, module, input_ids, attention_mask, positions)
                except (RuntimeError, IndexError, TypeError, ValueError, AttributeError, KeyError):
                    continue
                if found.shape == whole.shape and (found - whole).abs().max() <= tolerance * whole.abs().max():
                    return module
    finally:
        model.train(training)
    return None


def _two_sentences(model: PreTrainedModel) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of `masked_logits` for a try: input ids and attention mask (2, 6), and three positions."""
    input_ids = torch.arange(12, device=model.device).view(2, 6) % model.config.vocab_size
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 4:] = 0
    return input_ids, attention_mask, torch.tensor([1, 4, 8], device=model.device)
