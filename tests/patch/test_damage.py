"""A patch file in which a bit is not what was written is never used, whatever it is used for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import saved
from patches import NAME, older, patch_for, weights
from safetensors.torch import load_file

import lce
from lce.cli import main
from lce.foundations.errors import LceError
from lce.patch import Patch
from lce.patch.between import patch_between
from lce.patch.compose import compose
from lce.patch.on_folders import apply_patch, revert_patch
from lce.patch.peft import to_peft
from lce.patch.scale import scale
from lce.storage.safetensors_file import read_header


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint in ``model``, a patch for it in ``p``, and the patched checkpoint in ``patched``."""
    patch_for(saved("bert", tmp_path / "model"), path=tmp_path / "p")
    apply_patch(tmp_path / "model", Patch.load(tmp_path / "p"), tmp_path / "patched")
    return tmp_path


def flipped(path: Path, tensor: str) -> Path:
    """A copy of a patch file with the lowest bit of the last byte of a tensor turned."""
    content = bytearray(path.read_bytes())
    content[read_header(path)[1][tensor].stop - 1] ^= 1
    out = path.with_name("flipped")
    out.write_bytes(content)
    return out


@pytest.mark.parametrize("part", ["new", "old", "full", "steps"])
def test_a_flipped_bit_is_noticed_by_every_command(folder: Path, part: str, capfd: pytest.CaptureFixture[str]) -> None:
    bad, out = str(flipped(folder / "p", f"{part}/{NAME}")), str(folder / "out")
    for command in (
        ["apply", str(folder / "model"), "--patch", bad, "--out", out],
        ["revert", str(folder / "patched"), "--patch", bad, "--out", out],
        ["verify", str(folder / "model"), "--patch", bad],
        ["inspect", bad],
        ["compose", str(folder / "p"), bad, "--prefer", "first", "--out", out],
        ["scale", "--patch", bad, "--alpha", "3", "--out", out],
        ["to-peft", str(folder / "model"), "--patch", bad, "--out", out],
    ):
        capfd.readouterr()
        assert main(["patch", *command]) == 2, command
        assert f"is damaged; {part}/{NAME} does not hold what was written" in capfd.readouterr().err
        assert not Path(out).exists()
    with pytest.raises(LceError, match="is damaged"):
        lce.from_pretrained(folder / "model", patch=bad)


@pytest.mark.parametrize(("old", "new"), [('"alpha": 2.0', '"alpha": 3.0'), ('"count": 4', '"count": 3')])
def test_what_a_patch_says_of_itself_is_covered_too(folder: Path, old: str, new: str) -> None:
    content = (folder / "p").read_bytes()
    quoted = [text.replace('"', '\\"').encode() for text in (old, new)]
    assert quoted[0] in content
    (folder / "bad").write_bytes(content.replace(*quoted))
    with pytest.raises(LceError, match="is damaged; what it says of itself is not what was written"):
        Patch.load(folder / "bad")


def test_files_without_digests_load_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    patch = Patch.load(older(folder / "p", folder / "older"))
    assert "was made by an older lce, without digests" in caplog.text
    apply_patch(folder / "model", patch, folder / "out")
    assert load_file(folder / "out/model.safetensors")[NAME].equal(
        load_file(folder / "patched/model.safetensors")[NAME]
    )
    assert patch.verify(folder / "out") == "patched"
    revert_patch(folder / "out", patch, folder / "back")


@pytest.mark.parametrize("keep_old", [True, False])
@pytest.mark.parametrize("part", ["new", "steps"])
@pytest.mark.parametrize("use", ["by file", "in memory", "in place", "from_pretrained", "to PEFT"])
def test_of_files_without_digests_the_result_is_checked(folder: Path, use: str, part: str, keep_old: bool) -> None:
    patch_between(folder / "model", folder / "patched", folder / "p", keep_old)
    path = older(folder / "p", folder / "older")
    changed = load_file(path)[f"{part}/{NAME}"]
    changed[-1] += 1
    bad = older(folder / "p", folder / "bad", **{f"{part}/{NAME}": changed})
    model = saved("bert", folder / "again")
    before = weights(model)
    patch = Patch.load(bad)
    uses = {
        "by file": lambda: apply_patch(folder / "model", patch, folder / "out"),
        "in memory": lambda: patch.apply(model),
        "in place": lambda: patch.apply_(model),
        "from_pretrained": lambda: lce.from_pretrained(folder / "model", patch=bad),
        "to PEFT": lambda: to_peft(patch, folder / "model", folder / "out"),
    }
    with pytest.raises(LceError, match=r"the patch is damaged|is not the base of this patch|without the old values"):
        uses[use]()
    assert not (folder / "out").exists()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_model_that_was_patched_with_a_damaged_file_is_not_verified(folder: Path) -> None:
    """As older versions did it: the file's new values are there, but they are not what the edit had made."""
    path = older(folder / "p", folder / "older")
    changed = load_file(path)[f"new/{NAME}"]
    changed[-1] += 1
    bad = older(folder / "p", folder / "bad", **{f"new/{NAME}": changed})
    content = bytearray((folder / "patched/model.safetensors").read_bytes())
    entry = read_header(folder / "patched/model.safetensors")[1][NAME]
    position = entry.start + 4 * int(Patch.load(folder / "p").changes[NAME].indices[-1])
    content[position : position + 4] = changed[-1:].numpy().tobytes()
    (folder / "patched/model.safetensors").write_bytes(content)
    with pytest.raises(LceError, match="neither the patch's base nor"):
        Patch.load(bad).verify(folder / "patched")


def test_a_base_that_differs_only_where_the_patch_writes_is_refused_without_old_values(folder: Path) -> None:
    patch_between(folder / "model", folder / "patched", folder / "p", keep_old=False)
    patch_for(saved("bert", folder / "again"), alpha=5.0, path=folder / "other")
    apply_patch(folder / "model", Patch.load(folder / "other"), folder / "third")
    with pytest.raises(LceError, match="is not the base of this patch"):
        apply_patch(folder / "third", Patch.load(folder / "p"), folder / "out")
    with pytest.raises(LceError, match=r"the patch is applied already"):
        apply_patch(folder / "patched", Patch.load(folder / "p"), folder / "out")
    assert not (folder / "out").exists()


def test_a_patch_is_not_written_over_what_it_is_made_of(folder: Path) -> None:
    content = (folder / "p").read_bytes()
    (folder / "link").symlink_to(folder / "p")
    for path in ("p", "link"):
        with pytest.raises(LceError, match="would be written over while it is read"):
            scale(Patch.load(folder / "p"), 0.5, folder / path)
        with pytest.raises(LceError, match="would be written over while it is read"):
            compose(Patch.load(folder / "p"), Patch.load(folder / "p"), folder / path)
    assert (folder / "p").read_bytes() == content
