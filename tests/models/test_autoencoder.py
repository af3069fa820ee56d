"""Sparse autoencoders do what SAELens makes of the same files, and some of their features what they do among all."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from autoencoders import SIZE, WIDTH, K, made
from safetensors.torch import load_file, save_file

from lce.foundations.errors import LceError
from lce.models.autoencoder import ARCHITECTURES, NORMALISATIONS, SparseAutoencoder
from lce.models.autoencoder_files import SETTINGS, WEIGHTS, load_autoencoder, save_autoencoder
from lce.models.shifts import FeatureShift

STATES = 3 * torch.randn(4, 7, WIDTH, generator=torch.Generator().manual_seed(1)) + 0.5
SAELENS_NORMALISATIONS = (*NORMALISATIONS, "expected_average_only_in")


def compare(folder: Path) -> SparseAutoencoder:
    """What lce makes of ``folder`` does what SAELens makes of it does."""
    lens = pytest.importorskip("sae_lens")
    theirs, ours = lens.SAE.load_from_disk(folder), load_autoencoder(folder)
    assert ours.architecture == theirs.cfg.architecture()
    assert ours.site == theirs.cfg.metadata.hook_name == "blocks.3.hook_resid_post"
    with torch.no_grad():
        wanted, again = theirs.encode(STATES), theirs(STATES)
    assert 0 < int((wanted > 0).sum()) < wanted.numel()
    torch.testing.assert_close(ours.encode(STATES), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.reconstruct(STATES), again, atol=1e-5, rtol=1e-5)
    return ours


@pytest.mark.parametrize(
    ("architecture", "subtracts_bias", "normalisation"),
    [*product(ARCHITECTURES, [True, False], SAELENS_NORMALISATIONS)],
)
def test_encodes_and_reconstructs_as_saelens(
    architecture: str, subtracts_bias: bool, normalisation: str, tmp_path: Path
) -> None:
    """Of files that lce wrote, and of files that SAELens wrote."""
    about = {"subtracts_bias": subtracts_bias, "normalisation": normalisation}
    save_autoencoder(made(architecture, **about), tmp_path / "ours")
    found = compare(tmp_path / "ours")
    assert (found.normalisation in ("none", normalisation), found.subtracts_bias) == (True, subtracts_bias)
    lens = pytest.importorskip("sae_lens")
    theirs = lens.SAE.from_dict({
        "architecture": architecture, "d_in": WIDTH, "d_sae": SIZE, "apply_b_dec_to_input": subtracts_bias,
        "normalize_activations": normalisation, "metadata": {"hook_name": "blocks.3.hook_resid_post"},
        **({"k": K} if architecture == "topk" else {}),
    })  # fmt: skip
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(made(architecture).tensors()[name])
    theirs.save_model(tmp_path / "theirs")
    assert compare(tmp_path / "theirs").fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("architecture", "about"),
    [
        ("standard", {"hook_name": "blocks.3.hook_resid_post"}),
        ("standard", {"hook_point": "blocks.3.hook_resid_post", "normalize_activations": False}),
        ("standard", {"hook_point": "blocks.3.hook_resid_post", "normalize_activations": True}),
        ("standard", {"hook_name": "blocks.3.hook_resid_post", "activation_fn_str": "relu"}),
        ("topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}}),
        ("topk", {"activation_fn": "topk", "activation_fn_kwargs": {"k": 3}, "normalize_activations": "layer_norm"}),
        ("topk", {"architecture": "topk", "activation_fn_kwargs": {"k": 3}}),
        ("jumprelu", {"architecture": "jumprelu", "sae_lens_training_version": "4.2.0"}),
    ],
)
def test_older_files_are_read_as_saelens_reads_them(architecture: str, about: dict[str, Any], tmp_path: Path) -> None:
    """They had all settings on one level, often no architecture, and other names for some."""
    hook = {} if "hook_point" in about else {"hook_name": "blocks.3.hook_resid_post"}
    tensors: dict[str, torch.Tensor] = made(architecture).tensors()
    tensors |= {"scaling_factor": torch.ones(SIZE)} if "hook_point" in about else {}
    settings = {"d_in": WIDTH, "d_sae": SIZE, "dtype": "float32", "prepend_bos": True, **hook, **about}
    save_file(tensors, tmp_path / WEIGHTS)
    (tmp_path / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    found = compare(tmp_path)
    assert found.k == (3 if architecture == "topk" else None)
    assert found.subtracts_bias


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded(architecture: str, tmp_path: Path) -> None:
    whole = made(architecture, subtracts_bias=False, normalisation="layer_norm", metadata={"model_name": "some"})
    save_autoencoder(whole, tmp_path / "whole")
    found = load_autoencoder(tmp_path / "whole")
    assert found.fingerprint == whole.fingerprint
    for name in ("architecture", "k", "subtracts_bias", "normalisation", "site", "width", "size"):
        assert getattr(found, name) == getattr(whole, name)
    assert found.metadata is not None
    assert found.metadata["model_name"] == "some"
    assert load_autoencoder(tmp_path / "whole", "none").normalisation == "none"
    save_autoencoder(found, tmp_path / "half", torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / WEIGHTS).values()} == {torch.float16}
    half = load_autoencoder(tmp_path / "half")
    for name, tensor in half.tensors().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, whole.tensors()[name].half().float())
    with pytest.raises(LceError, match="exists already"):
        save_autoencoder(whole, tmp_path / "half")
    assert load_autoencoder(tmp_path / "half").fingerprint == half.fingerprint


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_on_another_device_all_its_tensors_are_there(architecture: str) -> None:
    whole, elsewhere = made(architecture), torch.device("meta")
    found = whole.to(elsewhere).tensors()
    assert {name: tensor.device for name, tensor in found.items()} == dict.fromkeys(whole.tensors(), elsewhere)
    assert whole.to(torch.device("cpu")) is whole


def test_the_fingerprint_changes_with_every_value() -> None:
    whole = made("jumprelu")
    found = {whole.fingerprint}
    for name in ("encoder", "decoder", "encoder_bias", "decoder_bias", "threshold"):
        tensor = getattr(whole, name).clone()
        tensor.view(-1)[-1] += 1e-6 * tensor.view(-1)[-1].abs() + 1e-7
        found.add(replace(whole, **{name: tensor}).fingerprint)
    assert len(found) == 6
    assert replace(whole, title="another", site="elsewhere").fingerprint == whole.fingerprint


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chosen_features_do_what_they_do_among_all(architecture: str, normalisation: str) -> None:
    """Whatever the type of the states; what they write is left out of nothing, and what others write is not in it."""
    whole, chosen = made(architecture, normalisation=normalisation), torch.tensor([31, 2, 17, 8])
    some = whole.features(chosen)
    assert len(some.encoder) == (SIZE if architecture == "topk" else 4)
    for states in (STATES, STATES.bfloat16(), STATES[2]):
        active = whole.encode(states)
        assert float(active[..., chosen].max()) > 0
        torch.testing.assert_close(some.activations(states)[0], active[..., chosen])
        alone = torch.zeros_like(active).index_copy(-1, chosen, active[..., chosen])
        scale = whole.features().activations(states)[1]
        torch.testing.assert_close(some.written(states, -1.5), -1.5 * (alone @ whole.decoder) * scale)
        torch.testing.assert_close(FeatureShift(some, 0.0).of(states), some.written(states, -1.0))
    everything = whole.features().written(STATES, 1.0)
    others = torch.tensor([i for i in range(SIZE) if i not in chosen.tolist()])
    torch.testing.assert_close(some.written(STATES, 1.0) + whole.features(others).written(STATES, 1.0), everything)
    if normalisation != "layer_norm":
        _, scale = whole.features().activations(STATES)
        torch.testing.assert_close(whole.reconstruct(STATES), everything + whole.decoder_bias * scale)
