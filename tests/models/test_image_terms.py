"""The image embedding as a sum of terms: they sum to transformers' own, and are what the published way materialises."""

from __future__ import annotations

import pytest
import torch
from clips import EMBEDDING, HEADS, LAYERS, WIDTH, embeddings, lively, random_pixels, tiny
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from lce.models.image_states import ImageStates
from lce.models.image_terms import Reading
from lce.models.image_tower import ImageTower

SHAPES = {"B/32": (12, 768, 12, 512, 32, 224), "B/16": (12, 768, 12, 512, 16, 224), "L/14": (24, 1024, 16, 768, 14, 98)}
"""Layers, width, heads, embedding, patch and side; L/14 with fewer patches, which takes a quarter of the time."""


def of_shape(layers, width, heads, embedding, patch, size):
    """A CLIP of a published shape with random weights, of which all layers are the same one: a twentieth in memory."""
    config = CLIPConfig(
        vision_config={
            "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 1, "num_attention_heads": heads,
            "patch_size": patch, "image_size": size, "projection_dim": embedding,
        },
        text_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                     "vocab_size": 8},
        projection_dim=embedding,
    )  # fmt: skip
    model = lively(CLIPModel(config).eval(), gain=0.5)
    encoder = model.vision_model.encoder
    encoder.layers = torch.nn.ModuleList([encoder.layers[0]] * layers)
    return model


def read(model, pixels):
    tower = ImageTower.of(model)
    states = ImageStates.of(tower, pixels)
    return Reading(tower), states


@torch.no_grad()
def literal_head_terms(model, pixels):
    """The terms of all heads, (n, L, H, D), from what every head takes to the class token from every token."""
    vision, projection = model.vision_model, model.visual_projection.weight
    states = vision.pre_layrnorm(vision.embeddings(pixels))
    heads = vision.encoder.layers[0].self_attn.num_heads
    found = []
    for layer in vision.encoder.layers:
        block, normal = layer.self_attn, layer.layer_norm1(states)
        q, k, v = (part(normal).unflatten(2, (heads, -1)) for part in (block.q_proj, block.k_proj, block.v_proj))
        weights = (torch.einsum("nqhc,nkhc->nhqk", q, k) / q.shape[-1] ** 0.5).softmax(-1)
        taken = torch.einsum("nhqk,nkhc->nhqkc", weights, v)
        by_head = block.out_proj.weight.unflatten(1, (heads, -1))
        found.append(torch.einsum("nhkc,dhc->nhkd", taken[:, :, 0], by_head).sum(2))
        states = states + torch.einsum("nhqkc,dhc->nqd", taken, by_head) + block.out_proj.bias
        states = states + layer.mlp(layer.layer_norm2(states))
    whole, norm = states[:, 0], vision.post_layernorm
    added = torch.stack(found, 1)
    spread = (whole.var(1, correction=0) + norm.eps).sqrt()
    centred = (added - added.mean(-1, keepdim=True)) / spread[:, None, None, None]
    length = (norm(whole) @ projection.T).norm(dim=1)
    return (centred * norm.weight) @ projection.T / length[:, None, None, None]


@pytest.mark.parametrize("n", [1, 5])
def test_the_terms_of_a_tiny_model_sum_to_its_embedding(n):
    model, pixels = tiny(), random_pixels(n)
    reading, states = read(model, pixels)
    terms, wanted = reading.terms(states), embeddings(model, pixels)
    assert terms.heads.shape == (n, LAYERS, HEADS, EMBEDDING)
    assert terms.biases.shape == terms.mlps.shape == (n, LAYERS, EMBEDDING)
    assert terms.embedding.shape == terms.norm.shape == (n, EMBEDDING)
    torch.testing.assert_close(terms.total(), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(states.embedding(), wanted, atol=1e-5, rtol=0)
    for name, part in terms._asdict().items():
        assert float(part.norm(dim=-1).mean()) > 1e-3, f"{name} matters here"


@pytest.mark.parametrize("name", SHAPES)
def test_the_terms_of_published_shapes_sum_to_the_embedding(name):
    model = of_shape(*SHAPES[name])
    pixels = F.interpolate(random_pixels(2, 3), SHAPES[name][-1])
    reading, states = read(model, pixels)
    layers, width, heads, embedding, *_ = SHAPES[name]
    assert reading.heads.shape == (layers, heads, embedding, width // heads)
    wanted = embeddings(model, pixels)
    assert float((wanted[0] - wanted[1]).norm()) > 0.05, "it tells the two pictures apart"
    torch.testing.assert_close(reading.terms(states).total(), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(states.embedding(), wanted, atol=1e-5, rtol=0)


def test_the_terms_of_heads_are_those_of_the_published_way():
    model, pixels = tiny(), random_pixels(4)
    reading, states = read(model, pixels)
    wanted = literal_head_terms(model, pixels)
    torch.testing.assert_close(reading.head_terms(states), wanted, atol=1e-6, rtol=1e-4)
    assert torch.equal(reading.terms(states).heads, reading.head_terms(states))


def test_what_the_normalisation_takes_away_is_no_part_of_a_term():
    """Adding the same to all entries of a state changes nothing."""
    reading, states = read(tiny(), random_pixels(3))
    assert float((reading.map @ torch.ones(WIDTH)).abs().max()) < 1e-5
    scale = reading.scales(states)
    c = states.last
    norm = reading.tower.vision.post_layernorm
    length = reading.tower.projection(norm(c)).norm(dim=1)
    torch.testing.assert_close(scale, 1 / (length * (c.var(1, correction=0) + norm.eps).sqrt()))
    torch.testing.assert_close(
        F.normalize(c @ reading.map.T * scale[:, None] + reading.terms(states).norm, dim=1), states.embedding()
    )


def test_the_terms_of_a_model_that_was_stored_in_half_precision_sum_as_exactly():
    model = tiny().half().float()
    pixels = random_pixels(3)
    reading, states = read(model, pixels)
    torch.testing.assert_close(reading.terms(states).total(), embeddings(model, pixels), atol=1e-5, rtol=0)
