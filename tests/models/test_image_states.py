"""What is kept of one batch of pictures, so that edits of heads compute only what follows from them."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from clips import LAYERS, WIDTH, embeddings, random_pixels, tiny

from lce.models import image_states
from lce.models.image_states import ImageStates
from lce.models.image_tower import ImageTower


@pytest.fixture(scope="module")
def made():
    """A model, pixels, and what becomes of them; and three other output projections of each layer."""
    model, pixels = tiny(), random_pixels(5)
    random = torch.Generator().manual_seed(3)

    def other(layer):
        out = model.vision_model.encoder.layers[layer].self_attn.out_proj
        noise = [torch.randn(part.shape, generator=random) / 10 for part in (out.weight, out.bias)]
        return (out.weight + noise[0]).detach(), (out.bias + noise[1]).detach()

    others = {layer: [other(layer) for _ in range(3)] for layer in range(LAYERS)}
    return model, pixels, ImageStates.of(ImageTower.of(model), pixels), others


def written_into(model, edit):
    """A copy of the ``model`` with the output projections of an edit."""
    changed = deepcopy(model)
    with torch.no_grad():
        for layer, (weight, bias) in edit.items():
            out = changed.vision_model.encoder.layers[layer].self_attn.out_proj
            out.weight.copy_(weight)
            out.bias.copy_(bias)
    return changed


def assert_like_written(made, edits):
    model, pixels, states, _ = made
    found = dict(states.embeddings(edits))
    assert sorted(found) == list(range(len(edits)))
    for number, edit in enumerate(edits):
        wanted = embeddings(written_into(model, edit), pixels)
        torch.testing.assert_close(found[number], wanted, atol=1e-5, rtol=0, msg=f"edit {number}")
        torch.testing.assert_close(states.embedding(edit), wanted, atol=1e-5, rtol=0)


def test_what_is_kept_is_what_the_model_computes(made):
    model, pixels, states, _ = made
    torch.testing.assert_close(states.embedding(), embeddings(model, pixels), atol=1e-5, rtol=0)
    assert torch.equal(states.embedding({}), states.embedding())
    with torch.no_grad():
        hidden = model.vision_model(pixels, output_hidden_states=True).hidden_states
    assert len(states.inputs) == LAYERS
    for found, wanted in zip(states.inputs, hidden, strict=False):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(states.last, hidden[-1][:, 0], atol=1e-5, rtol=0)
    assert [tuple(part.shape) for part in states.mixed] == [(5, 10, WIDTH)] * (LAYERS - 1) + [(5, 1, WIDTH)]
    assert [tuple(part.shape) for part in states.mlps] == [(5, WIDTH)] * LAYERS


def test_the_class_token_is_its_beginning_and_what_was_added(made):
    model, _, states, _ = made
    whole = states.inputs[0][:, 0].clone()
    for layer, block in enumerate(model.vision_model.encoder.layers):
        whole += block.self_attn.out_proj(states.mixed[layer][:, 0]).detach() + states.mlps[layer]
    torch.testing.assert_close(whole, states.last, atol=1e-5, rtol=0)


def test_edits_with_shared_beginnings_are_what_written_weights_give(made):
    """In any order, with the same beginnings, ends in common, and one that changes nothing."""
    others = made[3]
    edits = [
        {0: others[0][0]},
        {0: others[0][0], 1: others[1][0]},
        {0: others[0][0], 1: others[1][1], 2: others[2][0]},
        {2: others[2][0]},
        {},
        {0: others[0][1], 2: others[2][0]},
        {1: others[1][0]},
        {0: others[0][0], 1: others[1][0]},
        {2: others[2][1], 1: others[1][0]},
    ]
    assert_like_written(made, edits)
    found = dict(made[2].embeddings(edits))
    assert torch.equal(found[1], found[7])
    assert torch.equal(found[4], made[2].embedding())


def test_equal_weights_in_other_tensors_are_only_computed_again(made):
    others = made[3]
    same = tuple(part.clone() for part in others[0][0])
    assert_like_written(made, [{0: others[0][0]}, {0: same}, {0: same, 1: others[1][2]}])


@pytest.mark.parametrize(("layer", "computed"), [(0, 2), (1, 1), (2, 0)])
def test_nothing_below_an_edit_is_computed_again(made, monkeypatch, layer, computed):
    """Nor anything twice that several edits have in common."""
    calls = []
    original = image_states.attention
    monkeypatch.setattr(image_states, "attention", lambda *parts: (calls.append(parts[1]), original(*parts))[1])
    edit = {layer: made[3][layer][0]}
    dict(made[2].embeddings([edit, dict(edit), {}]))
    assert calls == list(range(layer + 1, layer + 1 + computed))


def test_no_edits_give_nothing(made):
    assert list(made[2].embeddings([])) == []
