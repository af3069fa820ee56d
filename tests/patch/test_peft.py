"""The adapter is loaded by PEFT alone; lce only wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from architectures import logits, made, saved
from patches import changes_of, patch_for, patch_of
from peft import PeftModel
from safetensors.torch import load_file

from lce.cli import main
from lce.foundations.errors import LceError
from lce.patch import Patch
from lce.patch.peft import to_peft
from lce.storage.changes import Change

PLACES = {
    "bert": ["bert.encoder.layer.0.attention.self.key.weight", "bert.encoder.layer.1.output.dense.weight"],
    "llama": ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"],
    "qwen2": ["model.layers.0.self_attn.o_proj.weight", "model.layers.1.mlp.up_proj.weight"],
    "t5": ["encoder.block.0.layer.0.SelfAttention.q.weight", "decoder.block.1.layer.1.EncDecAttention.v.weight"],
}


def written(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Path, Path, Patch]:
    """A model's folder, the adapter's, and the patch that it is made of."""
    model = saved(kind, folder / "model", dtype=dtype)
    positions = {PLACES[kind][0]: [0, 3, 17], PLACES[kind][1]: [*range(40, 90)]}
    patch = patch_for(model, positions=positions, path=folder / "p")
    command = [
        "patch",
        "to-peft",
        str(folder / "model"),
        "--patch",
        str(folder / "p"),
        "--out",
        str(folder / "adapter"),
    ]
    assert main(command) == 0
    return folder / "model", folder / "adapter", patch


@pytest.mark.parametrize("kind", PLACES)
def test_merged_it_is_the_patched_model(kind: str, tmp_path: Path) -> None:
    base, adapter, patch = written(kind, tmp_path)
    model = type(made(kind)).from_pretrained(base)
    before, expected = logits(model), logits(patch.apply(model))
    assert (before - expected).abs().max() > 1e-3
    adapted = PeftModel.from_pretrained(model, adapter).eval()
    torch.testing.assert_close(logits(adapted), expected, rtol=0, atol=1e-6)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-6)
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(parameter, patch.apply(type(model).from_pretrained(base)).get_parameter(name))


def test_its_scale_is_a_dial_for_alpha(tmp_path: Path) -> None:
    base, adapter, _ = written("bert", tmp_path)
    plain = type(made("bert")).from_pretrained(base)
    model = PeftModel.from_pretrained(type(plain).from_pretrained(base), adapter).eval()
    for alpha in (-1.0, 0.0, 0.5, 2.0):
        for module in model.modules():
            if hasattr(module, "set_scale"):
                module.set_scale("default", alpha / 2.0)  # the patch was made with α = 2
        places = {PLACES["bert"][0]: [0, 3, 17], PLACES["bert"][1]: [*range(40, 90)]}
        expected = logits(patch_for(plain, alpha, places).apply(plain)) if alpha else logits(plain)
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-6)


def test_half_precision(tmp_path: Path) -> None:
    base, adapter, patch = written("llama", tmp_path, torch.bfloat16)
    model = type(made("llama")).from_pretrained(base)
    expected = patch.apply(model)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), rtol=2**-7, atol=0)


def test_the_smallest_rank_that_fits_is_taken(tmp_path: Path) -> None:
    _, adapter, _ = written("bert", tmp_path)
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["r"]) == ("SHIRA", 2)  # 50 of 16 × 32 weights: 48 would fit r = 1
    tensors = load_file(adapter / "adapter_model.safetensors")
    for name in (name.removesuffix(".shira_weight") for name in tensors if name.endswith("weight")):
        indices = tensors[f"{name}.shira_indices"]
        assert indices.dtype == torch.int32
        assert len({tuple(place) for place in indices.T.tolist()}) == indices.shape[1], "no position occurs twice"


@pytest.mark.parametrize(
    ("kind", "positions", "message"),
    [
        ("bert", {"bert.embeddings.word_embeddings.weight": [1]}, "module of type Embedding; SHiRA adapts"),
        ("bert", {"bert.encoder.layer.0.output.dense.bias": [1]}, "weight matrices of modules only"),
        ("gpt2", {"transformer.h.0.attn.c_attn.weight": [1]}, "module of type Conv1D"),
        (
            "bert",
            {
                "bert.encoder.layer.0.attention.self.key.weight": range(1),
                "bert.encoder.layer.0.intermediate.dense.weight": range(500),
            },
            "key.weight: too dense for SHiRA.*intermediate.dense.weight needs r = 11",
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused(
    kind: str, positions: dict[str, list[int]], message: str, tmp_path: Path
) -> None:
    model = saved(kind, tmp_path / "model")
    patch = patch_for(model, positions={name: list(places) for name, places in positions.items()})
    with pytest.raises(LceError, match=message):
        to_peft(patch, tmp_path / "model", tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_old_values_and_the_right_model_are_needed(tmp_path: Path) -> None:
    model = saved("bert", tmp_path / "model")
    saved("llama", tmp_path / "other")
    saved("bert", tmp_path / "others", seed=1)
    patch = patch_for(model)
    for folder, message in (("other", "has none of this name"), ("others", "it is not the base of this patch")):
        with pytest.raises(LceError, match=message):
            to_peft(patch, tmp_path / folder, tmp_path / "adapter")
    changes = {name: Change(c.indices, c.new, c.shape) for name, c in changes_of(patch).items()}
    base = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with pytest.raises(LceError, match="without the old values"):
        to_peft(patch_of(changes, base), tmp_path / "model", tmp_path / "adapter")
