"""The layers of a model, and which of its parameters are their weight matrices."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAYER = re.compile(r"(?:^|\.)(\d+)\.")
"""The number of a layer in the name of a tensor."""

NO_MATRIX_PRODUCT = re.compile(r"embed|(?<!prelayer)norm|relative_attention_bias|position", re.IGNORECASE)
"""Names of tables and factors; RoBERTa-PreLayerNorm has a norm in the name of all its tensors."""


def is_prunable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a weight matrix of an encoder's or decoder's layer: what is pruned, compared and edited.

    Its name and shape decide, so that the answer is the same for a loaded model and for files. Biases, normalisation,
    embeddings, pooler and language-modelling head stay out (Lutz et al. 2024, appendix E).
    """
    return (
        len(shape) == 2
        and name.endswith(".weight")
        and LAYER.search(name) is not None
        and not NO_MATRIX_PRODUCT.search(name)
    )


def prunable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of ``model`` that are prunable, by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if is_prunable(name, tuple(p.shape))}


def compile_layers(model: PreTrainedModel) -> None:
    """Compile the encoder's layers in place, for sentences of any length.

    All but the last one: `logits_at` changes what goes through it from batch to batch.
    """
    for stack in model.base_model.modules():
        if isinstance(stack, nn.ModuleList):
            for layer in stack[:-1]:
                layer.compile(dynamic=True)
