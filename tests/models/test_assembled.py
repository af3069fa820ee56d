"""A vision-language model made of parts: each does in it what it does by itself, and plain transformers loads it."""

from __future__ import annotations

import json

import pytest
import torch
import vlms
from painted import SHAPES, painted
from transformers import AutoModelForCausalLM, AutoProcessor, CLIPModel, LlavaForConditionalGeneration

from lce.foundations.errors import LceError
from lce.models.assembled import IMAGE, MINI, PARTS, PROJECTOR, assemble, provide_mini, put_together, save_projector
from lce.models.clip import load_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("assembled")


@pytest.fixture(scope="module")
def names(folder):
    return vlms.parts(folder)


@pytest.fixture(scope="module")
def made(names):
    return assemble(*names)


@pytest.fixture
def stored(made, tmp_path):
    model, _, parts = made
    save_projector(model, parts, tmp_path / "projector", {"question": "What?"})
    return tmp_path / "projector"


@torch.no_grad()
def test_text_is_read_as_by_the_decoder_alone(made, names):
    model, processor, _ = made
    ids = processor.tokenizer("The nurse said that", return_tensors="pt")["input_ids"]
    alone = AutoModelForCausalLM.from_pretrained(names[1]).eval()
    found = model(input_ids=ids).logits
    known = alone.get_input_embeddings().num_embeddings
    torch.testing.assert_close(found[..., :known], alone(input_ids=ids).logits)


@torch.no_grad()
def test_a_picture_is_seen_as_by_the_clip(made, names):
    """What the projector is given are the states that go into the last layer, without the class token's."""
    model, _, _ = made
    pixels = load_clip(names[0], "cpu").pixels([painted(shape, "man", "dark", 1) for shape in SHAPES])
    tower = CLIPModel.from_pretrained(names[0], dtype=torch.float32).eval().vision_model
    states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    found = model.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(torch.stack(list(found)), model.model.multi_modal_projector(states))
    assert states.shape[1] == vlms.PATCHES


def test_a_prompt_has_a_token_for_each_patch_and_ends_where_the_answer_begins(made):
    _, processor, _ = made
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
    ids = processor(images=painted("circle", "woman", "light", 0), text=text)["input_ids"][0]
    assert ids.count(processor.tokenizer.convert_tokens_to_ids(IMAGE)) == vlms.PATCHES


def test_the_new_token_is_the_mean_of_all_others(made, names):
    model, _, _ = made
    alone = AutoModelForCausalLM.from_pretrained(names[1]).get_input_embeddings().weight
    rows = model.get_input_embeddings().weight
    if len(rows) > len(alone):
        torch.testing.assert_close(rows[len(alone) :], alone.mean(0).expand(len(rows) - len(alone), -1))
    torch.testing.assert_close(rows[: len(alone)], alone)


def test_its_parts_and_its_projector_make_it_again(made, stored):
    model, _, _ = made
    again, _ = put_together(stored)
    for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        wanted = one.half().float() if "projector" in name else one
        assert torch.equal(wanted, other), name
    assert json.loads((stored / PARTS).read_text(encoding="utf-8"))["question"] == "What?"


def test_the_seed_makes_the_first_projector(names, made):
    same, other = assemble(*names)[0], assemble(*names, 1)[0]
    weight = "model.multi_modal_projector.linear_1.weight"
    assert torch.equal(same.state_dict()[weight], made[0].state_dict()[weight])
    assert not torch.equal(other.state_dict()[weight], made[0].state_dict()[weight])


def test_other_parts_than_its_own_are_refused(stored, tmp_path):
    about = json.loads((stored / PARTS).read_text(encoding="utf-8"))
    other = vlms.decoder(tmp_path / "other", seed=1)
    (stored / PARTS).write_text(json.dumps(about | {"decoder": str(other)}), encoding="utf-8")
    with pytest.raises(LceError, match="other: its weights are not those that the projector in"):
        put_together(stored)
    (stored / PARTS).write_text(json.dumps({"clip": about["clip"]}), encoding="utf-8")
    with pytest.raises(LceError, match="does not name clip, decoder and their fingerprints"):
        put_together(stored)


def test_a_damaged_projector_is_refused(stored):
    content = bytearray((stored / PROJECTOR).read_bytes())
    content[-3] ^= 1
    (stored / PROJECTOR).write_bytes(content)
    with pytest.raises(LceError, match=r"projector\.safetensors: .*damaged"):
        put_together(stored)


def test_a_decoder_without_turns_is_refused(names, tmp_path):
    import causal_models

    with pytest.raises(LceError, match=r"plain: its tokenizer has no token <\|im_start\|>"):
        assemble(names[0], str(causal_models.saved("llama", tmp_path / "plain")))


def test_plain_transformers_loads_what_is_written(stored, tmp_path):
    folder = tmp_path / "downloads" / MINI
    provide_mini(folder, tmp_path / "downloads", stored)
    written = folder.stat().st_mtime_ns
    provide_mini(folder, tmp_path / "downloads", "nowhere")
    assert folder.stat().st_mtime_ns == written, "it is made once"
    loaded, processor = LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}],
        add_generation_prompt=True, tokenize=False,
    )  # fmt: skip
    inputs = processor(images=painted("square", "man", "light", 3), text=text, return_tensors="pt")
    with torch.no_grad():
        found = loaded.eval()(**inputs).logits
        again = put_together(stored)[0](**inputs).logits
    torch.testing.assert_close(found, again)
    assert loaded.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] <= inputs["input_ids"].shape[1] + 3
