from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import tiny_bert
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, BertForMaskedLM, BertTokenizer

from lce.cli import main
from lce.edits import Change
from lce.errors import LceError
from lce.patch import Patch
from lce.patch.folders import apply_patch, export_patch, revert_patch

NAME = "bert.encoder.layer.1.output.dense.weight"


def made_patch(model: BertForMaskedLM) -> Patch:
    base = {name: parameter.detach() for name, parameter in model.named_parameters()}
    changes = {}
    for name, positions in ((NAME, [0, 7, 100]), ("bert.encoder.layer.0.attention.self.key.weight", [5])):
        indices = torch.tensor(positions)
        old = base[name].flatten()[indices].clone()
        changes[name] = Change(indices, old, old * 2 + 1, tuple(base[name].shape))
    return Patch.create(changes, base, {"target": "tiny", "alpha": 2.0})


@pytest.fixture
def file(model: BertForMaskedLM, tmp_path: Path) -> Path:
    made_patch(model).save(tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shard", ["5GB", "3KB"])
def test_apply_and_revert_a_folder_bit_for_bit(model: BertForMaskedLM, file: Path, tmp_path: Path, shard: str) -> None:
    model.save_pretrained(tmp_path / "model", max_shard_size=shard)
    assert main(["patch", "apply", str(tmp_path / "model"), "--patch", str(file), "--out", str(tmp_path / "out")]) == 0
    patched = AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    expected = Patch.load(file).apply(model)
    for name, parameter in patched.named_parameters():
        assert torch.equal(parameter, expected.get_parameter(name))
    assert not torch.equal(patched.get_parameter(NAME), model.get_parameter(NAME))
    assert main(["patch", "revert", str(tmp_path / "out"), "--patch", str(file), "--out", str(tmp_path / "back")]) == 0
    assert files(tmp_path / "back") == files(tmp_path / "model")


def test_three_lines_of_python(model: BertForMaskedLM, file: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    downstream = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    before = {name: p.clone() for name, p in downstream.named_parameters()}
    edited = Patch.load(file).apply(downstream)
    assert all(torch.equal(p, before[name]) for name, p in downstream.named_parameters()), "the input is not mutated"
    changed = sum(int((p != before[name]).sum()) for name, p in edited.named_parameters())
    assert changed == 4
    patch = Patch.load(file)
    patch.apply_(downstream)
    patch.revert_(downstream)
    assert all(torch.equal(p, before[name]) for name, p in downstream.named_parameters())


def test_export_finds_what_changed(model: BertForMaskedLM, file: Path, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    apply_patch(tmp_path / "model", Patch.load(file), tmp_path / "edited")
    exported = tmp_path / "exported.safetensors"
    command = ["patch", "export", str(tmp_path / "model"), str(tmp_path / "edited"), "--out", str(exported)]
    assert main(command) == 0
    again, original = Patch.load(exported), Patch.load(file)
    assert again.base_fingerprint == original.base_fingerprint
    for name, change in original.changes.items():
        assert torch.equal(again.changes[name].indices, change.indices)
        assert torch.equal(again.changes[name].new, change.new)
    with pytest.raises(LceError, match="same weights"):
        export_patch(tmp_path / "model", tmp_path / "model")


def test_the_wrong_base_is_refused_and_nothing_written(
    tokenizer: BertTokenizer, model: BertForMaskedLM, file: Path, tmp_path: Path
) -> None:
    patch = Patch.load(file)
    tiny_bert(tokenizer, seed=1).save_pretrained(tmp_path / "other")
    model.save_pretrained(tmp_path / "model")
    model.half().save_pretrained(tmp_path / "half")
    present = sorted(tmp_path.iterdir())
    for folder, reason in (("other", "other values"), ("half", "float16"), ("missing", "no such folder")):
        with pytest.raises(LceError, match=reason):
            apply_patch(tmp_path / folder, patch, tmp_path / "out")
    with pytest.raises(LceError, match="patch is not applied"):
        revert_patch(tmp_path / "model", patch, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == present
    apply_patch(tmp_path / "model", patch, tmp_path / "out")
    with pytest.raises(LceError, match="applied already"):
        apply_patch(tmp_path / "out", patch, tmp_path / "twice")
    with pytest.raises(LceError, match="exists already"):
        apply_patch(tmp_path / "model", patch, tmp_path / "out")


def test_one_other_weight_in_a_touched_parameter_is_enough(model: BertForMaskedLM, file: Path) -> None:
    with torch.no_grad():
        model.get_parameter(NAME).view(-1)[50] += 1
    with pytest.raises(LceError, match="not the base of this patch"):
        Patch.load(file).apply(model)


def rewritten(file: Path, tensors: dict[str, torch.Tensor | None], **record: object) -> Path:
    """The patch file with some tensors replaced or (None) left out, and some metadata changed."""
    with safe_open(file, framework="pt") as content:
        about = json.loads(content.metadata()["lce"])
    merged = load_file(file) | tensors
    out = file.with_name("bad.safetensors")
    kept = {name: tensor for name, tensor in merged.items() if tensor is not None}
    save_file(kept, out, metadata={"lce": json.dumps(about | record)})
    return out


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"indices/{NAME}": torch.tensor([0, 7, 512])}, "outside"),
        ({f"indices/{NAME}": torch.tensor([-1, 7, 100])}, "outside"),
        ({f"indices/{NAME}": torch.tensor([7, 0, 100])}, "not sorted"),
        ({f"indices/{NAME}": torch.tensor([7, 7, 100])}, "not unique"),
        ({f"new/{NAME}": torch.tensor([1.0, float("nan"), 1.0])}, "not finite"),
        ({f"new/{NAME}": torch.tensor([1.0, 2.0])}, "3 indices"),
        ({f"new/{NAME}": torch.ones(3, dtype=torch.float16)}, "dtypes"),
        ({f"old/{NAME}": None}, "not those of its metadata"),
        ({"new/other": torch.ones(1)}, "not those of its metadata"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    file: Path, tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(LceError, match=message):
        Patch.load(rewritten(file, tensors))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"version": 2}, "format version 2"),
        ({"format": "other"}, "is no lce patch"),
        ({"base_fingerprint": "0"}, "base fingerprint"),
    ],
)
def test_lying_metadata_is_refused(file: Path, record: dict[str, object], message: str) -> None:
    with pytest.raises(LceError, match=message):
        Patch.load(rewritten(file, {}, **record))


def test_damaged_files_are_refused(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    for name, data in (("cut", content[:-10]), ("short", content[:20]), ("text", b"hello")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(LceError, match="cannot be read"):
            Patch.load(tmp_path / name)
    with pytest.raises(LceError, match="cannot be read"):
        Patch.load(tmp_path / "missing")


def test_inspect_tells_what_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["patch", "inspect", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "4 weights in 2 parameters" in printed
    assert "target: tiny" in printed
    assert NAME in printed
