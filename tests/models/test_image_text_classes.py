"""Every class of vision-language models goes through the same code: its visual tokens, layers, edits and answers."""

from __future__ import annotations

import pytest
import torch
import vlm_classes
from painted import painted
from torch.nn.functional import normalize

from lce.edit.site_edit import DirectionEdit
from lce.localize.directions import Direction
from lce.localize.lals import load_sentences, read_reference
from lce.localize.visual_leaning import Measure, read_leaning
from lce.metrics.caption_perplexity import caption_losses
from lce.models.identity import model_fingerprint

PICTURES = [painted("circle", gender, "light", 2) for gender in ("woman", "man")]


@pytest.fixture(scope="module", params=list(vlm_classes.CONFIGS))
def model(request):
    return vlm_classes.tiny(request.param)


@pytest.fixture(scope="module")
def inputs(model):
    return model.inputs(PICTURES, [model.prompt("What is it?"), model.prompt("Who?", " a")])


@pytest.fixture(scope="module")
def edit(model):
    vector = normalize(torch.randn(16, generator=torch.Generator().manual_seed(0)), dim=0)
    direction = Direction(vector, model.site(0), model_fingerprint(model.model), "gender")
    return DirectionEdit(direction, 1.0, positions="visual")


def states(model, inputs):
    seen = {}
    model.read(inputs, seen.__setitem__)
    return seen


def test_visual_tokens_and_layers_are_told_from_the_configuration(model, inputs):
    assert model.is_visual(inputs["input_ids"]).sum(1).tolist() == [vlm_classes.TOKENS[model.name]] * 2
    assert model.grids(inputs) == [vlm_classes.GRIDS[model.name]] * 2
    assert len(model.layers) == 2
    assert model.site(1).module(model.model) is model.layers[1]
    assert list(states(model, inputs)) == [0, 1]


def test_what_is_read_is_what_the_whole_model_computes(model, inputs):
    states = model.read(inputs, lambda *_: None)
    with torch.inference_mode():
        wanted = model.model(**inputs).logits
        torch.testing.assert_close(model.model.get_output_embeddings()(states), wanted, atol=1e-3, rtol=1e-3)


def test_an_edit_changes_visual_tokens_alone(model, inputs, edit):
    before = states(model, inputs)[0]
    with edit.applied(model.model):
        after = states(model, inputs)[0]
    visual, d = model.is_visual(inputs["input_ids"]), edit.direction.vector
    assert torch.equal(after[~visual], before[~visual])
    torch.testing.assert_close(after[visual], before[visual] - (before[visual] @ d)[:, None] * d)


def test_an_edit_works_under_generation(model, inputs, edit):
    """With a cache, in which the tokens of the picture are read once, as without one."""
    asked = {"max_new_tokens": 5, "do_sample": False, "suppress_tokens": [model.image_token]}
    with edit.applied(model.model):
        cached = model.model.generate(**inputs, **asked)
        anew = model.model.generate(**inputs, **asked, use_cache=False)
    assert torch.equal(cached, anew)


def test_texts_and_pictures_are_compared_in_every_layer(model):
    reference = read_reference(model, load_sentences("gender")[:40])
    measure = Measure(model.prompt("What?"), 5, 1.0, 1)
    found = read_leaning(model, reference, [lambda one=one: one for one in PICTURES], measure, reference.labels[None])
    assert found.scores.shape == (2, 2)
    assert found.maps[0].shape == (2, vlm_classes.TOKENS[model.name])
    assert torch.equal(found.scores, found.shuffled[0])


def test_captions_are_read_after_the_prompt(model):
    """As by the whole model's loss over the caption alone, whatever is read together."""
    prompt, captions = model.prompt("What?"), ["a circle", "a very large circle"]
    openers = [lambda one=one: one for one in PICTURES]
    losses, tokens = caption_losses(model, openers, prompt, captions, 2)
    for row, caption in enumerate(captions):
        inputs = model.inputs([PICTURES[row]], [f"{prompt} {caption}"])
        labels = inputs["input_ids"].clone()
        labels[:, : -int(tokens[row])] = -100
        with torch.inference_mode():
            loss = model.model(**inputs, labels=labels).loss
        assert losses[row] / tokens[row] == pytest.approx(float(loss), rel=1e-3)
        text = model.processor.tokenizer.decode(inputs["input_ids"][0, -int(tokens[row]) :])
        assert text.strip() == caption
