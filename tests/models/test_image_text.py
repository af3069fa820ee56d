"""Models of pictures and text: their prompts, which tokens are visual, and their states at every layer."""

from __future__ import annotations

import pytest
import torch
import vlms
from painted import SHAPES, painted

from lce.foundations.errors import LceError
from lce.models.image_text import load_image_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("image-text")


@pytest.fixture(scope="module")
def model(folder):
    return vlms.loaded(folder)


@pytest.fixture(scope="module")
def inputs(model):
    pictures = [painted(shape, "woman", "light", number) for number, shape in enumerate(SHAPES)]
    return model.inputs(pictures, [model.prompt("What is it?"), model.prompt("What?", "a "), model.prompt("Who?")])


def test_visual_tokens_are_those_of_the_picture(model, inputs):
    assert model.is_visual(inputs["input_ids"]).sum(1).tolist() == [vlms.PATCHES] * 3


def test_shorter_prompts_are_padded_on_the_left(inputs):
    attention = inputs["attention_mask"]
    assert attention[:, -1].tolist() == [1, 1, 1]
    assert int(attention.min()) == 0


def test_the_states_of_all_layers_are_those_of_plain_transformers(model, inputs):
    seen = {}
    last = model.read(inputs, seen.__setitem__)
    with torch.inference_mode():
        wanted = model.model(**inputs, output_hidden_states=True)
    assert list(seen) == [0, 1]
    for layer in range(vlms.LAYERS - 1):  # the last of transformers' is normalised
        torch.testing.assert_close(seen[layer], wanted.hidden_states[layer + 1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.model.lm_head(last), wanted.logits, atol=1e-4, rtol=1e-4)


def test_only_the_layers_that_are_asked_for_are_shown(model, inputs):
    seen = {}
    model.read(inputs, seen.__setitem__, [1])
    assert list(seen) == [1]


def test_texts_are_read_as_by_the_whole_model(model):
    seen, texts = {}, ["The woman smiles.", "A man"]
    about = model.read_texts(texts, seen.__setitem__)
    with torch.inference_mode():
        wanted = model.model(
            input_ids=about["input_ids"], attention_mask=about["attention_mask"], output_hidden_states=True
        )
    kept = about["attention_mask"].bool()
    torch.testing.assert_close(seen[0][kept], wanted.hidden_states[1][kept], atol=1e-5, rtol=1e-4)
    starts = about["offsets"][1][:, 0].tolist()
    assert starts[0] == 0
    assert max(starts) <= len(texts[1])


def test_a_layer_is_named_by_its_path(model):
    site = model.site(1)
    assert site.name == "language_model.layers.1"
    assert site.module(model.model) is model.layers[1]


def test_what_reads_no_pictures_is_refused(folder):
    clip, decoder = vlms.parts(folder)
    for name in (clip, decoder):
        with pytest.raises(LceError, match="is no model that reads pictures and writes text, such as LLaVA or Qwen2"):
            load_image_text(name)
