from __future__ import annotations

import itertools

import pytest
from masked_models import CONFIGS, tiny
from transformers import BertForMaskedLM

from lce.models.layers import is_prunable, prunable_parameters


@pytest.mark.parametrize("kind", CONFIGS)
def test_prunable_are_the_matrices_of_the_layers(kind: str) -> None:
    """Its name and shape tell the same of a tensor as the type of its module."""
    model = tiny(kind)
    linear = [
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "QuantLinear") and any(part.isdigit() for part in name.split("."))
    ]
    parameters = prunable_parameters(model)
    assert list(parameters) == linear
    assert parameters or kind == "squeezebert", "its matrices are convolutions"
    assert all(model.get_parameter(name) is parameter for name, parameter in parameters.items())


def test_prunable_weights_of_bert(model: BertForMaskedLM) -> None:
    layers = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    parts = (*layers, "intermediate.dense", "output.dense")
    expected = [f"bert.encoder.layer.{i}.{part}.weight" for i, part in itertools.product(range(2), parts)]
    assert list(prunable_parameters(model)) == expected


@pytest.mark.parametrize(
    "name",
    [
        "bert.embeddings.word_embeddings.weight",
        "bert.pooler.dense.weight",
        "cls.predictions.transform.dense.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "model.layers.0.self_attn.q_proj.bias",
    ],
)
def test_what_is_not_prunable(name: str) -> None:
    assert not is_prunable(name, (4, 4))
    assert not is_prunable("model.layers.0.mlp.up_proj.weight", (4,))
    assert is_prunable("model.layers.0.mlp.up_proj.weight", (4, 4))
