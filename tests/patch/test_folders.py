from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from architectures import MADE, saved
from patches import NAME, POSITIONS, patch_for
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from lce.cli import main
from lce.errors import LceError
from lce.patch import Patch
from lce.patch.between import patch_between
from lce.patch.folders import apply_patch, revert_patch, verify_patch
from lce.tensors import read_tensors


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A patch for the checkpoint in ``tmp_path / "model"``."""
    patch_for(saved("bert", tmp_path / "model")).save(tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("shard", ["5GB", "6KB"])
def test_apply_and_revert_bit_for_bit(shard: str, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    model = saved("bert", folder, max_shard_size=shard)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# The base\n", encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text("{}", encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"out of date")
    out, back = tmp_path / "out", tmp_path / "back"
    assert main(["patch", "apply", str(folder), "--patch", str(file), "--out", str(out)]) == 0
    patched, expected = AutoModelForMaskedLM.from_pretrained(out), Patch.load(file).apply(model)
    assert all(torch.equal(p, expected.get_parameter(name)) for name, p in patched.named_parameters())
    assert not torch.equal(patched.get_parameter(NAME), model.get_parameter(NAME))
    assert (out / "1_Pooling/config.json").exists()
    assert main(["patch", "revert", str(out), "--patch", str(file), "--out", str(back)]) == 0
    (folder / "pytorch_model.bin").unlink()
    assert files(back) == files(folder)


def test_verify(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(tmp_path / "model"), str(tmp_path / "out")
    assert main(["patch", "apply", model, "--patch", str(file), "--out", out]) == 0
    for folder, answer in ((model, "is the base"), (out, "has this patch applied")):
        assert main(["patch", "verify", folder, "--patch", str(file)]) == 0
        assert answer in capsys.readouterr().out
    lean = tmp_path / "lean.safetensors"
    assert main(["patch", "diff", model, out, "--out", str(lean), "--old_values", "false"]) == 0
    assert verify_patch(out, Patch.load(lean)) == "patched"
    saved("bert", tmp_path / "other", seed=1)
    with pytest.raises(LceError, match="neither the patch's base nor"):
        verify_patch(tmp_path / "other", Patch.load(file))
    half = load_file(tmp_path / "out/model.safetensors")
    half[NAME] = load_file(tmp_path / "model/model.safetensors")[NAME]
    save_file(half, tmp_path / "out/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LceError, match="in some of its parameters only"):
        verify_patch(tmp_path / "out", Patch.load(file))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", MADE)
def test_diff_finds_every_changed_bit(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "a", dtype=dtype)
    changed = 0
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            if i % 2:
                parameter.view(-1)[:: i + 1].neg_()  # a zero only turns its sign
                changed += len(parameter.view(-1)[:: i + 1])
    model.save_pretrained(tmp_path / "b", max_shard_size="6KB")
    patch = patch_between(tmp_path / "a", tmp_path / "b", tmp_path / "p")
    assert patch.count == changed
    apply_patch(tmp_path / "a", patch, tmp_path / "c")
    for name, tensor in read_tensors(tmp_path / "c", patch.parameters).items():
        assert torch.equal(tensor.view(torch.uint8), model.get_parameter(name).view(torch.uint8))
    with pytest.raises(LceError, match="same weights"):
        patch_between(tmp_path / "a", tmp_path / "a", tmp_path / "q")
    assert not (tmp_path / "q").exists()


def test_diff_of_what_cannot_be_compared(tmp_path: Path) -> None:
    saved("llama", tmp_path / "a")
    saved("llama", tmp_path / "half", dtype=torch.float16)
    saved("gpt2", tmp_path / "other")
    for folder, message in (("half", r"is F32 in .*, F16 in .*; a patch keeps the type"), ("other", "only .*a has ")):
        with pytest.raises(LceError, match=message):
            patch_between(tmp_path / "a", tmp_path / folder, tmp_path / "p")


def test_the_wrong_base_is_refused_and_nothing_written(file: Path, tmp_path: Path) -> None:
    patch = Patch.load(file)
    saved("bert", tmp_path / "other", seed=1)
    saved("bert", tmp_path / "half", dtype=torch.float16)
    saved("gpt2", tmp_path / "gpt2")
    present = sorted(tmp_path.iterdir())
    for folder, reason in (
        ("other", "other values"),
        ("half", "F16"),
        ("gpt2", f"has no parameter {next(iter(POSITIONS))}"),
        ("missing", "no such folder"),
    ):
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


def test_a_full_disk_gets_one_line_and_leaves_nothing(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    present = sorted(tmp_path.rglob("*"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, before[1]))  # no file may grow beyond it
    try:
        command = ["patch", "apply", str(tmp_path / "model"), "--patch", str(file), "--out", str(tmp_path / "out")]
        assert main(command) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "out: cannot be written (File too large); nothing was left behind" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == present


def test_a_kill_leaves_the_old_state_and_the_next_run_tidies_up(file: Path, tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from lce.patch import Patch, folders\n"
        "def killed(*_):\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
        "folders.write_card = killed\n"
        f"folders.apply_patch({str(tmp_path / 'model')!r}, Patch.load({str(file)!r}), {str(tmp_path / 'out')!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob(".out.*.tmp"))) == 1
    for _ in range(50):  # until the system has forgotten the process
        try:
            apply_patch(tmp_path / "model", Patch.load(file), tmp_path / "out")
            break
        except LceError:
            time.sleep(0.1)
    assert (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out.*.tmp"))
