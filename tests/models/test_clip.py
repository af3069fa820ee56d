"""Opening a CLIP: what it embeds is what plain transformers embeds, and what is no CLIP is refused in one line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from clips import EMBEDDING, HEADS, LAYERS, NAMES, WIDTH, embeddings, loaded, saved, tiny
from conftest import tiny_bert
from painted import SHAPES, painted
from torch.nn import functional as F
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BertTokenizer,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from lce.foundations.errors import LceError
from lce.models.clip import TEXTS, load_clip
from lce.models.image_tower import ImageTower


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("clips") / "tiny")


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(folder, "cpu")


def test_texts_are_embedded_as_plain_transformers_does(clip, folder):
    """However many there are, and of whatever lengths."""
    texts = [f"a {name} and a {other}" for name in NAMES for other in NAMES] * 3 + ["", "circle " * 100]
    assert len(texts) > TEXTS
    found = clip.text_embeddings(texts)
    assert found.shape == (len(texts), EMBEDDING)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(texts)))
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for number in (0, 7, TEXTS + 1, len(texts) - 2, len(texts) - 1):
        with torch.no_grad():
            one = tokenizer([texts[number]], truncation=True, max_length=24, return_tensors="pt")
            wanted = F.normalize(model.get_text_features(**one).pooler_output, dim=1)[0]
        torch.testing.assert_close(found[number], wanted, atol=1e-5, rtol=0)


def test_pictures_are_prepared_and_embedded_as_plain_transformers_does(clip, folder):
    pictures = [painted(shape, "woman", "light", number) for number, shape in enumerate(SHAPES)]
    processor, model = AutoImageProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    assert torch.equal(clip.pixels(pictures), pixels)
    torch.testing.assert_close(embeddings(clip.model, pixels), embeddings(model, pixels))


def test_its_parts(clip, folder):
    tower = clip.tower
    assert (len(tower.layers), tower.heads, tower.width, tower.head_width) == (LAYERS, HEADS, WIDTH, WIDTH // HEADS)
    names = dict(clip.model.named_parameters())
    for layer in range(LAYERS):
        assert names[f"{tower.output_name(layer)}.weight"] is tower.output(layer).weight
    assert clip.scale == pytest.approx(CLIPModel.from_pretrained(folder).logit_scale.exp().item())
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_computes_in_float32_whatever_it_is_stored_in(dtype, tmp_path):
    clip = loaded(tmp_path / "stored", dtype=dtype)
    assert {parameter.dtype for parameter in clip.model.parameters()} == {torch.float32}
    wanted = tiny().to(dtype).float()
    assert all(torch.equal(p, wanted.get_parameter(name)) for name, p in clip.model.named_parameters())


def refused(folder, message):
    with pytest.raises(LceError, match=message) as error:
        load_clip(folder, "cpu")
    assert str(folder) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def beside(folder, model, name):
    """A folder with another ``model`` and the tokenizer and the image processor of the tiny one."""
    other = shutil.copytree(folder, folder.parent / name)
    model.save_pretrained(other)
    return other


def test_a_model_that_pools_by_attention_is_refused(folder):
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SiglipConfig(
        vision_config=tower | {"image_size": 24, "patch_size": 8}, text_config=tower | {"vocab_size": 700}
    )
    refused(beside(folder, SiglipModel(config), "siglip"), "comes from a pooling attention, .* needs a class token")


def test_models_of_text_or_pictures_alone_are_refused(folder, tokenizer, tmp_path):
    bert = tmp_path / "bert"
    tiny_bert(tokenizer).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    refused(bert, "is no CLIP; a model with an image and a text encoder is needed")
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=24, patch_size=8
    )
    refused(beside(folder, ViTModel(config), "vit"), "is no CLIP")


def test_folders_that_lack_something_are_refused(folder, tmp_path):
    refused(tmp_path / "none", "no such folder")
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        lacking = shutil.copytree(folder, tmp_path / f"without-{name}")
        (lacking / name).unlink()
        refused(lacking, "model")
    headless = shutil.copytree(folder, tmp_path / "without-tokenizer")
    for path in headless.glob("*token*"):
        path.unlink()
    refused(headless, "has no tokenizer")
    shallow = tmp_path / "shallow"
    saved(shallow)
    config = json.loads((shallow / "config.json").read_text(encoding="utf-8"))
    config["vision_config"]["num_hidden_layers"] += 1
    (shallow / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(shallow, r"its checkpoint lacks vision_model\.encoder\.layers\.3|asks for more")


def test_a_device_that_is_not_there_is_refused(folder):
    with pytest.raises(LceError, match="device nowhere"):
        load_clip(folder, "nowhere")


def test_other_modules_are_refused():
    with pytest.raises(LceError, match="model BertForMaskedLM: its image encoder is not built like that of CLIP"):
        ImageTower.of(tiny_bert(BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4})))
    model = tiny()
    del model.vision_model.pre_layrnorm
    with pytest.raises(LceError, match="not built like that of CLIP"):
        ImageTower.of(model)
