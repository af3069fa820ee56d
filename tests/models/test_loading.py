"""Models as others publish them: with code, pickles, or wrong sizes."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from patches import patch_of
from transformers import (
    BertForMaskedLM,
    BertTokenizer,
)

import lce
from lce.cli import main
from lce.foundations.errors import LceError
from lce.models.loading import load_language_model, without_bounds
from lce.models.logits import logits_at
from lce.storage.changes import Change

OWN_CODE = """
from pathlib import Path
from transformers import BertConfig, BertForMaskedLM

Path(__file__).resolve()
Path({witness!r}).touch()

class OwnConfig(BertConfig):
    model_type = "somebodys-own"

class OwnModel(BertForMaskedLM):
    config_class = OwnConfig
"""


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file, or (...) take them out."""
    content = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}), encoding="utf-8")


@pytest.fixture
def folder(model: BertForMaskedLM, tokenizer: BertTokenizer, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def witness(folder: Path, tmp_path: Path) -> Path:
    """A file that the code of the model in ``folder``, which it needs, makes."""
    path = tmp_path / "code-was-run"
    (folder / "own.py").write_text(OWN_CODE.format(witness=str(path)), encoding="utf-8")
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForMaskedLM": "own.OwnModel"}
    change(folder / "config.json", model_type="somebodys-own", architectures=["OwnModel"], auto_map=classes)
    return path


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(LceError) as caught:
        load_language_model(folder, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def a_patch(model: BertForMaskedLM, path: Path) -> Path:
    name, weight = "bert.encoder.layer.0.output.dense.weight", model.bert.encoder.layer[0].output.dense.weight
    old = weight.detach().flatten()[:2]
    changes = {name: Change(torch.tensor([0, 1]), old + 1, tuple(weight.shape), old)}
    patch_of(changes, {name: weight}, path=path)
    return path


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers copies a model's code before it runs it: not into the user's folder, and under its own name."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def test_a_model_is_loaded_in_float32(base: Path) -> None:
    model, tokenizer = load_language_model(base)
    assert model.dtype == torch.float32
    assert tokenizer.mask_token == "[MASK]"


def test_code_of_the_models_own_runs_only_when_asked_for(
    folder: Path, witness: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks a question"))
    wanted = "brings code of its own, which is run only with --trust_remote_code true"
    assert wanted in refused(folder)
    assert main(["evaluate", str(folder), "--experiment", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err.strip().splitlines()
    assert len(message) == 1
    assert wanted in message[0]
    assert not witness.exists()
    model, tokenizer = load_language_model(folder, trust_remote_code=True)
    assert type(model).__name__ == "OwnModel"
    assert witness.exists()
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    assert wanted in refused(tmp_path / "again")
    load_language_model(tmp_path / "again", trust_remote_code=True)


def test_a_tokenizer_of_the_models_own(folder: Path) -> None:
    change(
        folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]}, tokenizer_class="Own"
    )
    (folder / "own.py").write_text("raise SystemExit", encoding="utf-8")
    load_language_model(folder)  # transformers has a class for it, too


def test_from_pretrained_runs_code_only_when_asked_to(
    folder: Path, witness: Path, model: BertForMaskedLM, tmp_path: Path
) -> None:
    patch = a_patch(model, tmp_path / "patch.safetensors")
    with pytest.raises(LceError, match="brings code of its own"):
        lce.from_pretrained(folder, patch=patch)
    assert not witness.exists()
    assert type(lce.from_pretrained(folder, patch=patch, trust_remote_code=True)).__name__ == "OwnModel"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
def test_nothing_is_unpickled(name: str, folder: Path, model: BertForMaskedLM) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / name)
    assert f"does not open {name}: convert the model to safetensors first" in refused(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "other.safetensors", "pytorch_model.bin"])
def test_weights_under_other_names_are_refused(name: str, folder: Path) -> None:
    change(folder / "config.json", transformers_weights=name)
    assert "names other weights than its own" in refused(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 10**9}, "asks for more than the"),
        ({"intermediate_size": 10**9}, "asks for more than the"),
        ({"vocab_size": 10**12}, "asks for more than the"),
        ({"max_position_embeddings": 10**9}, "asks for more than the"),
        ({"num_hidden_layers": 10**5}, "asks for more than the"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1e+09; no model has so many"),
        ({"num_labels": 10**9}, "num_labels is 1e+09; no model has so many"),
        ({"num_hidden_layers": 3}, "lacks bert.encoder.layer.2"),
        ({"max_position_embeddings": 64}, "has the shape (128, 16) in its files, (64, 16) by its configuration"),
        ({"auto_map": 7}, "brings code of its own"),
    ],
)
def test_sizes_that_are_not_the_weights(values: dict[str, Any], message: str, folder: Path) -> None:
    change(folder / "config.json", **values)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    assert message in refused(folder)
    assert time.perf_counter() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize(
    "values",
    [{"architectures": 7}, {"chunk_size_feed_forward": 2}, {"return_dict": False}, {"output_attentions": True}],
)
def test_how_results_come_does_not_matter(values: dict[str, Any], folder: Path, model: BertForMaskedLM) -> None:
    change(folder / "config.json", **values)
    ids = torch.arange(5, 12).view(1, 7)
    with torch.no_grad():
        found = logits_at(load_language_model(folder)[0], ids, torch.ones_like(ids), torch.tensor([1, 6]))
        torch.testing.assert_close(found, model(ids).logits[0, [1, 6]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_max_length": "many"}, "takes 'many' tokens"),
        ({"model_max_length": -5}, "takes -5 tokens"),
        ({"pad_token": None}, "has no padding token"),
        ({"mask_token": None}, "has no mask token"),
    ],
)
def test_a_tokenizer_that_cannot_be_used(values: dict[str, Any], message: str, folder: Path) -> None:
    change(folder / "tokenizer_config.json", **values)
    assert message in refused(folder)


def test_a_token_without_a_place_in_the_model(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["vocab"]["bridge"] = 5000
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "has a token with the number 5,000" in refused(folder)


@pytest.mark.parametrize("dtype", ["float16", "torch.bfloat16", torch.float64, "auto", None])
def test_the_type_of_numbers_is_as_in_transformers(dtype: Any, folder: Path, model: Any, tmp_path: Path) -> None:
    patch = a_patch(model, tmp_path / "patch.safetensors")
    wanted = getattr(torch, str(dtype).removeprefix("torch.")) if dtype not in ("auto", None) else torch.float32
    assert lce.from_pretrained(folder, patch=patch, dtype=dtype).dtype == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "half"}, ""),
        ({"dtype": "float17"}, "got 'float17'"),
        ({"dtype": "int8"}, "got 'int8'"),
        ({"dtype": 16}, "got 16"),
        ({"attn_implementation": "none such"}, "cannot be loaded"),
        ({"no_such_option": 1}, "cannot be loaded"),
        ({"subfolder": "nowhere"}, "holds no config.json"),
    ],
)
def test_errors_of_from_pretrained_are_lines(
    options: dict[str, Any], message: str, folder: Path, model: Any, tmp_path: Path
) -> None:
    patch = a_patch(model, tmp_path / "patch.safetensors")
    if not message:
        assert lce.from_pretrained(folder, patch=patch, **options).dtype == torch.float16
        return
    with pytest.raises(LceError, match=message) as caught:
        lce.from_pretrained(folder, patch=patch, **options)
    assert "\n" not in str(caught.value)


def test_a_saved_tokenizer_does_not_cut_what_its_last_call_cut(folder: Path, tmp_path: Path) -> None:
    _, tokenizer = load_language_model(folder)
    tokenizer(["one two three four five six"], truncation=True, max_length=4, padding=True)
    without_bounds(tokenizer).save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/tokenizer.json").read_text(encoding="utf-8"))
    assert saved["truncation"] is None
    assert saved["padding"] is None
    assert "max_length" not in json.loads((tmp_path / "saved/tokenizer_config.json").read_text(encoding="utf-8"))
