from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from architectures import MADE, made, saved
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from lce.foundations.errors import LceError
from lce.models.layers import is_prunable
from lce.storage.arrays import digest
from lce.storage.checkpoint import Checkpoint, aligned, canonical, common_tensors
from lce.storage.torch_bridge import read_tensor, read_tensors, tensor_digest


@pytest.mark.parametrize("kind", MADE)
def test_the_default_tensors_are_the_matrices_of_the_layers(kind: str) -> None:
    model = made(kind)
    modules = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and any(part.isdigit() for part in name.split("."))
    }
    assert {name for name, p in model.named_parameters() if is_prunable(name, tuple(p.shape))} == modules


@pytest.mark.parametrize("shard", ["5GB", "6KB"])
@pytest.mark.parametrize("kind", MADE)
def test_every_parameter_is_found_by_its_name(kind: str, shard: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path, dtype=torch.bfloat16, max_shard_size=shard)
    checkpoint = Checkpoint(tmp_path)
    assert (len(checkpoint.files) > 1) == (shard == "6KB")
    assert set(checkpoint.entries) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        entry = checkpoint.entry(name)
        assert torch.equal(read_tensor(entry).view(entry.shape), parameter)
        assert digest(entry.chunks(), entry.code, entry.shape) == tensor_digest(parameter)


def rewrite(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Put tensors into the single file of a checkpoint, or (None) take them out."""
    path = folder / "model.safetensors"
    merged = load_file(path) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in merged.items() if tensor is not None}, path, metadata={"format": "pt"})


def test_old_names_and_constants(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    names = set(Checkpoint(tmp_path).entries)
    norm = "bert.embeddings.LayerNorm"
    old = load_file(tmp_path / "model.safetensors")
    rewrite(
        tmp_path,
        **{
            f"{norm}.gamma": old[f"{norm}.weight"],
            f"{norm}.beta": old[f"{norm}.bias"],
            f"{norm}.weight": None,
            f"{norm}.bias": None,
            "bert.embeddings.position_ids": torch.arange(32).view(1, -1),
            "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
            "h.0.attn.masked_bias": torch.tensor(-1e4),
        },
    )
    assert set(Checkpoint(tmp_path).entries) == names
    rewrite(tmp_path, **{"h.0.attn.bias": torch.ones(4)})
    assert set(Checkpoint(tmp_path).entries) == names | {"h.0.attn.bias"}, "a vector is a weight"
    assert canonical("vision.layer_scale.gamma") == "vision.layer_scale.gamma"


def test_second_copies_of_tied_weights(tmp_path: Path) -> None:
    saved("bert", tmp_path)
    embeddings = "bert.embeddings.word_embeddings.weight"
    old = load_file(tmp_path / "model.safetensors")
    copies = {
        "cls.predictions.decoder.weight": old[embeddings].clone(),
        "cls.predictions.decoder.bias": old["cls.predictions.bias"].clone(),
    }
    rewrite(tmp_path, **copies)
    checkpoint = Checkpoint(tmp_path)
    assert not set(copies) & set(checkpoint.entries)
    assert {name: [copy.name for copy in found] for name, found in checkpoint.copies.items()} == {
        embeddings: ["cls.predictions.decoder.weight"],
        "cls.predictions.bias": ["cls.predictions.decoder.bias"],
    }
    rewrite(tmp_path, **{"cls.predictions.decoder.weight": old[embeddings] + 1})
    assert "cls.predictions.decoder.weight" in Checkpoint(tmp_path).entries, "other values are another weight"


def test_equal_weights_of_a_model_that_ties_nothing_are_two(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    rewrite(tmp_path, **{"lm_head.weight": load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]})
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) | {"tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "lm_head.weight" in Checkpoint(tmp_path).entries


def test_tensors_of_one_model_only(tmp_path: Path) -> None:
    for side in "ab":
        saved("llama", tmp_path / side)
    rewrite(tmp_path / "b", extra__0__weight=torch.ones(2, 2), other=torch.ones(1))
    a, b = Checkpoint(tmp_path / "a"), Checkpoint(tmp_path / "b")
    with pytest.raises(LceError, match=r"only .*b has extra.0.weight, other; .* --skip_unmatched"):
        common_tensors(a, b, lambda name, entry: True, skip_unmatched=False)
    assert common_tensors(a, b, lambda name, entry: True, skip_unmatched=True) == {n: n for n in a.entries}
    rewrite(tmp_path / "b", **{"model.norm.weight": torch.ones(15)})
    with pytest.raises(LceError, match=r"model.norm.weight: has shape \(16,\) in .*a, \(15,\) in"):
        common_tensors(a, Checkpoint(tmp_path / "b"), lambda name, entry: True, skip_unmatched=True)
    with pytest.raises(LceError, match="no such tensor in common"):
        common_tensors(a, b, lambda name, entry: False, skip_unmatched=False)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LceError, match="holds neither"):
        Checkpoint(tmp_path)
    saved("llama", tmp_path, max_shard_size="6KB")
    index = tmp_path / "model.safetensors.index.json"
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(LceError, match="holds already"):
        Checkpoint(tmp_path)
    second.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(LceError, match="cannot be read"):
        Checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}), encoding="utf-8")
    with pytest.raises(LceError, match=r"names '../a.safetensors', which is no file of this folder"):
        Checkpoint(tmp_path)
    index.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(LceError, match="cannot be read as JSON"):
        Checkpoint(tmp_path)


def test_a_tensor_that_is_missing(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    with pytest.raises(LceError, match="has no tensor nothing"):
        read_tensors(tmp_path, ["nothing"])


def test_names_with_and_without_the_prefix_of_the_whole_model() -> None:
    inner = ["wte.weight", "h.0.attn.c_attn.weight", "h.1.attn.c_attn.weight"]
    whole = ["lm_head.weight", *(f"transformer.{name}" for name in inner)]
    assert aligned(inner, whole) == {name: f"transformer.{name}" for name in inner}
    assert aligned(whole, inner) == {"lm_head.weight": "lm_head.weight"} | {f"transformer.{n}": n for n in inner}
    assert aligned(whole, whole) == {name: name for name in whole}
    assert aligned(inner, []) == {name: name for name in inner}


def stored(folder: Path, **tensors: torch.Tensor) -> Checkpoint:
    """A checkpoint of just these tensors; two underscores are a dot."""
    folder.mkdir()
    save_file({name.replace("__", "."): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return Checkpoint(folder)


def in_common(one: Checkpoint, other: Checkpoint) -> set[str]:
    return set(common_tensors(one, other, lambda name, entry: True, skip_unmatched=False))


def test_equal_bytes_alone_are_no_tie(tmp_path: Path) -> None:
    zeros, ones = torch.zeros(4, 4), torch.ones(4, 4)
    one = stored(tmp_path / "a", head__weight=zeros, projection__weight=zeros.clone())
    other = stored(tmp_path / "b", head__weight=zeros, projection__weight=ones)
    assert in_common(one, other) == {"head.weight", "projection.weight"}


def test_a_copy_that_the_other_model_has_untied_is_a_weight_of_its_own(tmp_path: Path) -> None:
    zeros, ones = torch.zeros(4, 4), torch.ones(4, 4)
    one = stored(tmp_path / "a", model__embed_tokens__weight=ones, lm_head__weight=ones.clone())
    other = stored(tmp_path / "b", model__embed_tokens__weight=ones, lm_head__weight=zeros)
    assert list(one.copies) == ["model.embed_tokens.weight"]
    assert "lm_head.weight" in in_common(one, other)
    assert not any(one.copies.values())


def test_empty_tensors_take_no_part(tmp_path: Path) -> None:
    tensors = {"h__0__a__weight": torch.ones(2, 2), "h__0__b__weight": torch.empty(0, 4), "h__0__c": torch.tensor(1.0)}
    one, other = stored(tmp_path / "a", **tensors), stored(tmp_path / "b", **tensors)
    assert in_common(one, other) == {"h.0.a.weight", "h.0.c"}
