"""Files of sparse autoencoders: what cannot be used is one line, and of the hub's, no more than that is downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from autoencoders import SIZE, WIDTH, made
from hub_server import Hub, point_at
from huggingface_hub.utils import close_session
from safetensors.torch import load_file, save_file

from lce.foundations.errors import LceError
from lce.models.autoencoder_files import SETTINGS, WEIGHTS, load_autoencoder, save_autoencoder
from lce.storage.hub import _part_of_hub

NOT_A_NUMBER = torch.zeros(SIZE).index_fill(0, torch.tensor([7]), float("nan"))


def changed(folder: Path, tensors: dict[str, torch.Tensor | None] | None = None, **settings: Any) -> Path:
    """The autoencoder in ``folder`` with other settings and tensors; those that are None are left out."""
    about = json.loads((folder / SETTINGS).read_text(encoding="utf-8")) | settings
    about = {key: value for key, value in about.items() if value is not None}
    (folder / SETTINGS).write_text(json.dumps(about), encoding="utf-8")
    merged = load_file(folder / WEIGHTS) | (tensors or {})
    save_file({name: tensor for name, tensor in merged.items() if tensor is not None}, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ("standard", {"architecture": "gated"}, r"is of the kind 'gated'; lce reads standard, topk, jumprelu, no"),
        ("standard", {"architecture": ["topk"]}, r"is of the kind \['topk'\]"),
        ("standard", {"metadata": {"hook_name": "blocks.3.attn.hook_z"}}, r"single attention heads \(hook_z\)"),
        ("standard", {"reshape_activations": "hook_z"}, r"single attention heads \(hook_z\)"),
        ("standard", {"normalize_activations": "whitening"}, r"normalises states by 'whitening'; lce knows none, con"),
        ("standard", {"normalize_activations": {"a": 1}}, r"normalises states by \"\{'a': 1\}\""),
        ("standard", {"d_in": 13}, r"W_dec has the shape \(40, 12\), by cfg.json \(40, 13\)"),
        ("standard", {"d_sae": None}, r"W_dec has the shape \(40, 12\), by cfg.json \(None, 12\)"),
        ("standard", {"tensors": {"b_dec": torch.zeros(WIDTH + 1)}}, r"b_dec has the shape \(13,\), by .* \(12,\)"),
        ("standard", {"tensors": {"W_dec": None, "b_enc": None}}, r"sae_weights.safetensors lacks W_dec, b_enc"),
        ("standard", {"tensors": {"W_gate": torch.zeros(3)}}, r"has tensors that lce does not know: W_gate"),
        ("standard", {"tensors": {"b_enc": NOT_A_NUMBER}}, r"b_enc holds infinite values or NaN"),
        ("standard", {"tensors": {"b_enc": 1 / torch.zeros(SIZE)}}, r"b_enc holds infinite values or NaN"),
        ("standard", {"tensors": {"threshold": torch.ones(SIZE)}}, r"a jumprelu autoencoder has a threshold, and no"),
        ("jumprelu", {"tensors": {"threshold": None}}, r"a jumprelu autoencoder has a threshold, and no other"),
        ("standard", {"tensors": {"scaling_factor": torch.full((SIZE,), 2.0)}}, r"has a scaling_factor beside its"),
        ("topk", {"k": 0}, r"k: expected 1 to 40 features, got 0"),
        ("topk", {"k": SIZE + 1}, r"k: expected 1 to 40 features, got 41"),
        ("topk", {"k": None}, r"k: expected 1 to 40 features, got None"),
        ("topk", {"k": True}, r"k: expected 1 to 40 features, got True"),
        ("topk", {"k": None, "activation_fn_kwargs": [3]}, r"k: expected 1 to 40 features, got None"),
        ("topk", {"rescale_acts_by_decoder_norm": True}, r"rescale_acts_by_decoder_norm set; fold the norms into it"),
    ],
)  # fmt: skip
def test_bad_files(architecture: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_autoencoder(made(architecture), tmp_path / "sae")
    load_autoencoder(tmp_path / "sae")
    refused(str(changed(tmp_path / "sae", **change)), message)


def refused(name: str, message: str) -> None:
    with pytest.raises(LceError, match=message) as caught:
        load_autoencoder(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_no_autoencoder(tmp_path: Path) -> None:
    for content, message in (("[1]", "expected a mapping, got list"), ("{", "cannot be read as JSON")):
        folder = tmp_path / f"{len(content)}"
        save_autoencoder(made(), folder)
        (folder / SETTINGS).write_text(content, encoding="utf-8")
        refused(str(folder), rf"cfg.json: {message}")
    save_autoencoder(made(), tmp_path / "cut")
    (tmp_path / "cut" / WEIGHTS).write_bytes((tmp_path / "cut" / WEIGHTS).read_bytes()[:-9])
    refused(str(tmp_path / "cut"), WEIGHTS)
    (tmp_path / "empty").mkdir()
    refused(str(tmp_path / "empty"), r"empty: holds no cfg.json and no sae_weights.safetensors")
    refused(str(tmp_path / "nowhere"), r"nowhere: no such folder, and no OWNER/REPOSITORY/FOLDER of the hub")
    refused("nowhere", r"nowhere: no such folder, and no OWNER/REPOSITORY/FOLDER of the hub")
    refused("a" * 300, r"cannot be looked up \(File name too long\)")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    point_at(server, monkeypatch, tmp_path / "cache")
    _part_of_hub.cache_clear()
    close_session()
    yield server
    _part_of_hub.cache_clear()
    close_session()
    server.close()


MISTRAL = "JoshEngels/Mistral-7B-Residual-Stream-SAEs"


@pytest.mark.parametrize("repository", ["somebody/saes", MISTRAL])
def test_one_folder_of_a_repository_of_the_hub(repository: str, hub: Hub, tmp_path: Path) -> None:
    """Of which nothing else is downloaded; what SAELens's directory adds to its settings is known."""
    hub.models[repository] = tmp_path / "published"
    save_autoencoder(made("jumprelu"), tmp_path / "published/layer_8/wide")
    save_autoencoder(made("topk"), tmp_path / "published/layer_16")
    save_autoencoder(made(), tmp_path / "published/root")
    for file in (SETTINGS, WEIGHTS):
        (tmp_path / "published/root" / file).rename(tmp_path / "published" / file)
    (tmp_path / "published/layer_8/wide/sparsity.safetensors").write_bytes(b"more")
    found = load_autoencoder(f"{repository}/layer_8/wide")
    assert found.fingerprint == made("jumprelu").fingerprint
    assert found.normalisation == ("constant_norm_rescale" if repository == MISTRAL else "none")
    assert load_autoencoder(f"{repository}/layer_8/wide", "layer_norm").normalisation == "layer_norm"
    asked = {request.split("/")[-1] for request in hub.requests if "/resolve/" in request}
    assert asked == {SETTINGS, WEIGHTS}
    assert all("/layer_8/wide/" in request for request in hub.requests if "/resolve/" in request)
    assert load_autoencoder(f"{repository}/layer_16/").architecture == "topk"
    assert load_autoencoder(repository).architecture == "standard"
    refused(f"{repository}/layer_9", r"layer_9: holds no cfg.json and no sae_weights.safetensors")
    refused("somebody/else/layer_9", r"somebody/else/layer_9: no such folder, and the hub does not give it \(404")
    _part_of_hub.cache_clear()
    close_session()
    hub.close()
    assert load_autoencoder(f"{repository}/layer_8/wide").fingerprint == found.fingerprint, "it is in the cache"
