"""Edits of the tokens of pictures: nothing else changes, generation goes on from them, and a patch keeps them."""

from __future__ import annotations

import pytest
import torch
import vlms
from painted import painted
from torch.nn.functional import normalize

from lce.edit.site_edit import DirectionEdit
from lce.foundations.errors import LceError
from lce.localize.directions import Direction
from lce.models.identity import model_fingerprint
from lce.patch.hooks import HookPatch
from lce.patch.loading import from_pretrained

LAYER = 0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vlms.loaded(tmp_path_factory.mktemp("visual"))


@pytest.fixture(scope="module")
def inputs(model):
    pictures = [painted("circle", gender, "light", 2) for gender in ("woman", "man")]
    return model.inputs(pictures, [model.prompt("What is it?"), model.prompt("Who?", "a ")])


@pytest.fixture(scope="module")
def edit(model):
    vector = normalize(torch.randn(16, generator=torch.Generator().manual_seed(0)), dim=0)
    direction = Direction(vector, model.site(LAYER), model_fingerprint(model.model), "gender")
    return DirectionEdit(direction, 1.0, positions="visual")


def states(model, inputs):
    seen = {}
    model.read(inputs, seen.__setitem__)
    return seen


def test_the_direction_is_taken_out_of_the_tokens_of_pictures_alone(model, inputs, edit):
    before = states(model, inputs)[LAYER]
    with edit.applied(model.model):
        after = states(model, inputs)[LAYER]
    visual, d = model.is_visual(inputs["input_ids"]), edit.direction.vector
    assert torch.equal(after[~visual], before[~visual])
    torch.testing.assert_close(after[visual], before[visual] - (before[visual] @ d)[:, None] * d)
    assert float((after[visual] @ d).abs().max()) < 1e-5
    assert torch.equal(states(model, inputs)[LAYER], before), "after the block, nothing is left of it"


def test_text_without_a_picture_is_left_alone(model, edit):
    ids = model.processor.tokenizer("He said", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        before = model.model(input_ids=ids).logits
        with edit.applied(model.model):
            assert torch.equal(model.model(input_ids=ids).logits, before)


def test_generation_goes_on_from_the_edited_picture(model, inputs, edit):
    """With a cache, in which the tokens of the picture are read once, as without one."""
    plain = model.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    with edit.applied(model.model):
        cached = model.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        anew = model.model.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=False)
    assert torch.equal(cached, anew)
    assert not torch.equal(cached, plain)


def test_a_patch_keeps_it(model, inputs, edit, tmp_path):
    written = edit.patch(tmp_path / "patch.safetensors", {"model": "tiny"})
    assert HookPatch.load(written.file).positions == "visual"
    patched = from_pretrained(model.folder, patch=written.file).eval()
    with torch.inference_mode():
        found = patched(**inputs).logits
        with edit.applied(model.model):
            assert torch.equal(found, model.model(**inputs).logits)


def test_a_model_that_is_not_told_its_tokens_is_refused(model, inputs, edit):
    embedded = model.model.get_input_embeddings()(inputs["input_ids"])
    with edit.applied(model.model), pytest.raises(LceError, match="is not told which those are"):
        model.model(inputs_embeds=embedded)
