from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import saved
from patches import NAME, POSITIONS, claiming, files, patch_for
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

import lce
from lce.cli import main
from lce.foundations.errors import LceError
from lce.patch import Patch
from lce.patch.between import patch_between
from lce.patch.on_folders import apply_patch, revert_patch
from lce.patch.record import same_bits


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A patch for the checkpoint in ``tmp_path / "model"``."""
    patch_for(saved("bert", tmp_path / "model"), path=tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


@pytest.mark.usefixtures("chunk")
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


def test_a_parameter_in_which_nothing_moves(tmp_path: Path) -> None:
    """At a small α the steps of a whole matrix may be lost in rounding; another α would move it."""
    model = saved("bert", tmp_path / "model", dtype=torch.bfloat16)
    with torch.no_grad():
        model.get_parameter(NAME).fill_(64.0)
    model.save_pretrained(tmp_path / "model")
    patch_for(model, alpha=0.01, path=tmp_path / "p")
    patch = Patch.load(tmp_path / "p")
    assert same_bits(patch.changes[NAME].new, patch.changes[NAME].old)
    apply_patch(tmp_path / "model", patch, tmp_path / "out")
    assert [patch.verify(tmp_path / name) for name in ("model", "out")] == ["base", "patched"]
    revert_patch(tmp_path / "out", patch, tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "model")


def test_weights_in_subfolders_are_other_models_and_stay(file: Path, tmp_path: Path) -> None:
    (tmp_path / "model/2_Dense").mkdir()
    save_file({"linear.weight": torch.ones(2, 2)}, tmp_path / "model/2_Dense/model.safetensors")
    apply_patch(tmp_path / "model", Patch.load(file), tmp_path / "out")
    revert_patch(tmp_path / "out", Patch.load(file), tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "model")


def test_cards_are_stacked(file: Path, tmp_path: Path) -> None:
    (tmp_path / "model/README.md").write_bytes("---\nlicense: 2024-13-45\n---\n# Bäse\n".encode("latin-1"))
    first, second = Patch.load(file), patch_for(Patch.load(file).apply(saved("bert", tmp_path / "again")))
    steps = [tmp_path / name for name in ("model", "once", "twice", "once more", "back")]
    for work, patch, source, out in (
        (apply_patch, first, *steps[0:2]),
        (apply_patch, second, *steps[1:3]),
        (revert_patch, second, *steps[2:4]),
        (revert_patch, first, *steps[3:5]),
    ):
        work(source, patch, out)
    assert (steps[2] / "README.base.base.md").exists()
    assert files(steps[3]) == files(steps[1])
    assert files(steps[4]) == files(steps[0])


def test_an_output_inside_of_the_model_is_refused(file: Path, tmp_path: Path) -> None:
    before = files(tmp_path / "model")
    for place in ("model", "model/sub/patched"):
        with pytest.raises(LceError, match="lies inside of"):
            apply_patch(tmp_path / "model", Patch.load(file), tmp_path / place)
    assert files(tmp_path / "model") == before
    assert not (tmp_path / "model/sub").exists()


def test_a_patch_that_unties_a_head(tmp_path: Path) -> None:
    for folder, head in (("a", torch.ones(4, 4)), ("b", torch.zeros(4, 4))):
        (tmp_path / folder).mkdir()
        tensors = {"model.embed_tokens.weight": torch.ones(4, 4), "lm_head.weight": head}
        save_file(tensors, tmp_path / folder / "model.safetensors", metadata={"format": "pt"})
    patch = patch_between(tmp_path / "a", tmp_path / "b", tmp_path / "p")
    assert list(patch.parameters) == ["lm_head.weight"]
    apply_patch(tmp_path / "a", patch, tmp_path / "c")
    revert_patch(tmp_path / "c", patch, tmp_path / "back")
    for made, wanted in (("c", "b"), ("back", "a")):
        assert files(tmp_path / made)["model.safetensors"] == files(tmp_path / wanted)["model.safetensors"]


def test_a_base_whose_names_lack_the_prefix(tmp_path: Path) -> None:
    """As GPT-2's and BERT's first checkpoints on the hub do."""
    whole = saved("gpt2", tmp_path / "whole")
    config = (tmp_path / "whole/config.json").read_text(encoding="utf-8")
    whole.base_model.save_pretrained(tmp_path / "base")
    (tmp_path / "base/config.json").write_text(config, encoding="utf-8")
    saved("gpt2", tmp_path / "reference", seed=1)
    for target, reference in (("base", "reference"), ("whole", "base")):
        if target == "whole":
            with torch.no_grad():
                whole.transformer.h[0].attn.c_attn.weight.add_(1)
            whole.save_pretrained(tmp_path / "whole")
        patch_between(tmp_path / target, tmp_path / reference, tmp_path / "p")
        apply_patch(tmp_path / target, Patch.load(tmp_path / "p"), tmp_path / f"{target}-edited")
        assert Patch.load(tmp_path / "p").verify(tmp_path / f"{target}-edited") == "patched"
    patch_between(tmp_path / "base", tmp_path / "reference", tmp_path / "p")
    edited = lce.from_pretrained(tmp_path / "base", patch=tmp_path / "p")
    wanted = type(whole).from_pretrained(tmp_path / "reference")
    assert type(edited) is type(whole)
    assert all(torch.equal(p, wanted.get_parameter(name)) for name, p in edited.named_parameters())


def test_verify(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(tmp_path / "model"), str(tmp_path / "out")
    assert main(["patch", "apply", model, "--patch", str(file), "--out", out]) == 0
    for folder, answer in ((model, "is the base"), (out, "has this patch applied")):
        assert main(["patch", "verify", folder, "--patch", str(file)]) == 0
        assert answer in capsys.readouterr().out
    lean = tmp_path / "lean.safetensors"
    assert main(["patch", "diff", model, out, "--out", str(lean), "--old_values", "false"]) == 0
    assert Patch.load(lean).verify(out) == "patched"
    unknown = {name: replace(about, sha256_after=None) for name, about in Patch.load(lean).parameters.items()}
    with pytest.raises(LceError, match="cannot be told without old values"):
        claiming(Patch.load(lean), unknown).verify(out)
    saved("bert", tmp_path / "other", seed=1)
    with pytest.raises(LceError, match="neither the patch's base nor"):
        Patch.load(file).verify(tmp_path / "other")
    half = load_file(tmp_path / "out/model.safetensors")
    half[NAME] = load_file(tmp_path / "model/model.safetensors")[NAME]
    save_file(half, tmp_path / "out/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LceError, match="in some of its parameters only"):
        Patch.load(file).verify(tmp_path / "out")


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
    saved("bert", tmp_path / "other", seed=1)
    present = sorted(tmp_path.rglob("*"))
    model, out = str(tmp_path / "model"), str(tmp_path / "new/out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, before[1]))  # no file may grow beyond it
    try:
        for command in (
            ["apply", model, "--patch", str(file), "--out", out],
            ["diff", model, str(tmp_path / "other"), "--out", out],
        ):
            assert main(["patch", *command]) == 2
            assert "out: cannot be written (File too large); nothing was left behind" in capsys.readouterr().err
            assert sorted(tmp_path.rglob("*")) == present
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_kill_leaves_the_old_state_and_the_next_run_tidies_up(file: Path, tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from lce.patch import Patch, on_folders as folders\n"
        "def killed(*_):\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
        "folders.stack_card = killed\n"
        f"folders.apply_patch({str(tmp_path / 'model')!r}, Patch.load({str(file)!r}), {str(tmp_path / 'out')!r})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob(".lce-*.tmp"))) == 1
    for _ in range(50):  # until the system has forgotten the process
        try:
            apply_patch(tmp_path / "model", Patch.load(file), tmp_path / "out")
            break
        except LceError:
            time.sleep(0.1)
    assert (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".lce-*.tmp"))


@pytest.mark.parametrize("action", ["diff", "apply", "revert", "verify", "inspect", "compose"])
def test_what_only_moves_bytes_needs_neither_torch_nor_other_commands(action: str, file: Path, tmp_path: Path) -> None:
    apply_patch(tmp_path / "model", Patch.load(file), tmp_path / "edited")
    models, out = [str(tmp_path / name) for name in ("model", "edited")], str(tmp_path / "out")
    patch_for(Patch.load(file).apply(saved("bert", tmp_path / "again")), path=tmp_path / "second")
    arguments = {
        "diff": [*models, "--out", out],
        "apply": [models[0], "--patch", str(file), "--out", out],
        "revert": [models[1], "--patch", str(file), "--out", out],
        "verify": [models[0], "--patch", str(file)],
        "inspect": [str(file)],
        "compose": [str(file), str(tmp_path / "second"), "--out", out],
    }[action]
    unwanted = {"torch", "lce.commands.registry"}
    script = f"import sys; from lce.cli import main; print(main(sys.argv[1:]), {unwanted} & set(sys.modules))"
    command = [sys.executable, "-c", script, "patch", action, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"
