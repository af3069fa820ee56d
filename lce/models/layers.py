"""The layers of a model, and which of its parameters are their weight matrices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lce.models.logits import _GATHERED_AFTER, _latest_mixing_of_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def layer_stacks(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    """The stacks of the encoder's layers, by name."""
    modules = model.base_model.named_modules()
    return {f"{model.base_model_prefix}.{name}": stack for name, stack in modules if isinstance(stack, nn.ModuleList)}


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the encoder's layers in place, for sentences of any length.

    All but the last one, in which `masked_logits` changes from batch to batch which positions go on.
    """
    _GATHERED_AFTER[model] = _latest_mixing_of_positions(model)  # tried now, not on compiled layers
    for stack in layer_stacks(model).values():
        for layer in stack[:-1]:
            layer.compile(dynamic=True)


def prunable_parameters(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weight matrices of the encoder's layers by name, in order: what is pruned, compared and edited.

    These are the linear modules inside a stack of layers. Biases, normalisation, embeddings, pooler and
    language-modelling head stay out (Lutz et al. 2024, appendix E).
    """
    inside = tuple(f"{name}." for name in layer_stacks(model))
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(inside)
    }


LAYER = re.compile(r"(?:^|\.)(\d+)\.")

NO_MATRIX_PRODUCT = re.compile(r"embed|norm|relative_attention_bias|position", re.IGNORECASE)


def is_layer_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a weight matrix of an encoder's or decoder's layer, by its name and shape.

    Embeddings, normalisation, biases, pooler and head are none. `lce.models.prunable_parameters` finds the same by the
    modules' types, where there is a model to ask.
    """
    return (
        len(shape) == 2
        and name.endswith(".weight")
        and LAYER.search(name) is not None
        and not NO_MATRIX_PRODUCT.search(name)
    )
