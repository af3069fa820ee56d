"""A hook patch that is damaged, lies, or fits no state is refused in one line, before it is set in a model."""

from __future__ import annotations

import json
import shutil
from random import Random

import planted
import pytest
import torch
from hook_patches import made_in, without_hooks
from patches import rewritten

from lce.cli import main
from lce.foundations.errors import LceError
from lce.patch.hooks import HookPatch
from lce.patch.loading import from_pretrained
from lce.storage.safetensors_file import read_header


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_in(tmp_path_factory.mktemp("hooks"))


@pytest.fixture
def copies(made, tmp_path):
    """The patches in a folder of the test's own."""
    for kind in made.edits:
        shutil.copy(made.file(kind), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        ("feature", {"encoder": None}),
        ("feature", {"threshold": None}),
        ("feature", {"extra": torch.ones(2)}),
        ("feature", {"decoder": torch.ones(3, planted.WIDTH)}),
        ("feature", {"decoder": torch.ones(2, 1)}),
        ("feature", {"decoder": torch.ones(2, 16)}),
        ("feature", {"decoder": torch.ones(2)}),
        ("feature", {"encoder": torch.ones(planted.WIDTH)}),
        ("feature", {"encoder_bias": torch.ones(1)}),
        ("feature", {"encoder_bias": torch.ones(2, 1)}),
        ("feature", {"threshold": torch.tensor(0.0)}),
        ("feature", {"centre": torch.ones(1)}),
        ("feature", {"centre": torch.full((planted.WIDTH,), float("nan"))}),
        ("feature", {"decoder": torch.full((2, planted.WIDTH), float("inf"))}),
        ("feature", {"decoder": torch.ones(2, planted.WIDTH).half()}),
        ("feature", {"encoder": torch.ones(2, planted.WIDTH, dtype=torch.int64)}),
        ("feature", {"chosen": torch.tensor([0, 2])}),
        ("topk", {"chosen": torch.tensor([0, planted.FEATURES])}),
        ("topk", {"chosen": torch.tensor([0, -1])}),
        ("topk", {"chosen": torch.tensor([0, 2**62])}),
        ("topk", {"chosen": torch.tensor([0])}),
        ("topk", {"chosen": torch.tensor([[0], [1]])}),
        ("topk", {"chosen": torch.tensor([0.0, 1.0])}),
        ("topk", {"chosen": None}),
        ("direction", {"direction": None}),
        ("direction", {"direction": torch.eye(planted.WIDTH)}),
        ("direction", {"direction": torch.ones(planted.WIDTH)}),
        ("direction", {"direction": torch.zeros(0)}),
        ("direction", {"direction": torch.full((planted.WIDTH,), float("nan"))}),
        ("direction", {"mean": torch.ones(1)}),
    ],
)  # fmt: skip
def test_tensors_that_do_not_make_up_an_edit(copies, kind, tensors):
    with pytest.raises(LceError, match=r"bad.safetensors: (its tensors do not make up|holds values that)") as error:
        HookPatch.load(rewritten(copies / f"{kind}.safetensors", tensors))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


NUMBERS = {"scale": 0.3, "normalisation": "none", "k": 2}


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("feature", {"format": "other"}, "is no hook patch of lce"),
        ("feature", {"version": 2}, "has format version 2; this lce reads version 1"),
        ("feature", {"version": "1"}, "has format version '1'"),
        ("feature", {"kind": "weights"}, "do not make up what it says it is"),
        ("feature", {"kind": "x" * 10**6}, "do not make up what it says it is"),
        ("feature", {"kind": "direction"}, "do not make up what it says it is"),
        ("feature", {"kind": None}, "does not say for which model and site"),
        ("feature", {"positions": "none"}, "does not say for which model and site"),
        ("feature", {"positions": ["all"]}, "does not say for which model and site"),
        ("feature", {"site": 3}, "does not say for which model and site"),
        ("feature", {"site": ""}, "does not say for which model and site"),
        ("feature", {"site": "layers.0\x1b[2J"}, "does not say for which model and site"),
        ("feature", {"base_fingerprint": "\x1b[2J"}, "does not say for which model and site"),
        ("feature", {"provenance": []}, "its provenance is no mapping"),
        ("feature", {"provenance": {"a": json.loads("[" * 500 + "]" * 500)}}, "nested more than 20 deep"),
        ("feature", {"numbers": None}, "do not make up"),
        ("feature", {"numbers": []}, "do not make up"),
        ("feature", {"numbers": {"scale": 0.3, "k": None}}, "do not make up"),
        *(("feature", {"numbers": NUMBERS | {"scale": scale}}, "do not make up")
          for scale in (float("nan"), float("-inf"), 10**400, "x", None, [1], True)),
        *(("topk", {"numbers": NUMBERS | {"k": k}}, "do not make up")
          for k in (planted.FEATURES + 1, 0, -1, 1.5, 10**400, "2", True, [])),
        ("topk", {"numbers": NUMBERS | {"normalisation": "other"}}, "do not make up"),
        ("direction", {"numbers": {"alpha": float("nan")}}, "do not make up"),
        ("direction", {"numbers": {}}, "do not make up"),
        ("direction", {"numbers": {"alpha": 1.0, "mean": 0.0}}, "do not make up"),
        ("direction", {"numbers": {"alpha": float("inf")}}, "do not make up"),
    ],
)  # fmt: skip
def test_metadata_that_lies(copies, kind, changed, message):
    with pytest.raises(LceError, match=message) as error:
        HookPatch.load(rewritten(copies / f"{kind}.safetensors", {}, **changed))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_damage_is_noticed_wherever_it_is(made, tmp_path):
    """A turned bit of every part of the file, a file cut off or with something behind it, and no patch at all."""
    path = made.file("topk")
    content, bad, random = path.read_bytes(), tmp_path / "bad", Random(0)
    for entry in read_header(path)[1].values():
        bad.write_bytes(flipped(content, entry.stop - 1, 0))
        with pytest.raises(LceError, match=f"bad: is damaged; {entry.name} does not hold what was written"):
            HookPatch.load(bad)
    for old, new in ((b'\\"scale\\": 0.3', b'\\"scale\\": 0.4'), (b"layers.0", b"layers.1"), (b"2.0", b"9.0")):
        assert old in content
        bad.write_bytes(content.replace(old, new, 1))
        with pytest.raises(LceError, match="bad: is damaged; what it says of itself is not what was written"):
            HookPatch.load(bad)
    for data in (b"", b"hello", content[:-1], content[:20], content + b"\0"):
        bad.write_bytes(data)
        with pytest.raises(LceError, match="bad: cannot be read"):
            HookPatch.load(bad)
    for _ in range(400):
        bad.write_bytes(flipped(content, random.randrange(len(content)), random.randrange(8)))
        with pytest.raises(LceError, match=r"bad: (cannot be read|is damaged|is no hook patch|its tensors do)"):
            HookPatch.load(bad)
    for none, message in ((tmp_path / "missing", "cannot be read"), (tmp_path, "cannot be read")):
        with pytest.raises(LceError, match=message):
            HookPatch.load(none)


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_what_fits_no_state_at_the_site_is_refused_before_anything_runs(made, copies):
    changes = {"layers.0.mlp.gate_proj": "are 8 wide", "layers.7": "has no module layers.7"}
    for site, message in changes.items():
        patch = HookPatch.load(rewritten(copies / "feature.safetensors", {}, site=site))
        with pytest.raises(LceError, match=message):
            patch.apply_(made.model)
    assert without_hooks(made.model)


def test_every_command_refuses_a_damaged_file_in_one_line(made, tmp_path, capfd):
    content = made.file("feature").read_bytes()
    (tmp_path / "bad").write_bytes(flipped(content, len(content) - 1, 0))
    for command in (["inspect", str(tmp_path / "bad")], ["verify", str(made.base), "--patch", str(tmp_path / "bad")]):
        capfd.readouterr()
        assert main(["patch", *command]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert "bad: is damaged; " in line
    with pytest.raises(LceError, match="bad: is damaged"):
        from_pretrained(made.base, patch=tmp_path / "bad")


def test_what_a_patch_says_of_itself_is_shown_as_text(copies, capsys):
    nasty = {
        "\x1b[2Jkey": "\x1b[31m\nline",
        "features": ["\x1b[2J", *range(50)],
        "scores": {"a": {"before": "?"}, "b": 2},
    }
    bad = rewritten(copies / "feature.safetensors", {}, provenance=nasty)
    assert main(["patch", "inspect", str(bad)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "and 11 more" in printed
    assert "a: – → –" in printed
    none = rewritten(copies / "feature.safetensors", {}, provenance={"features": []})
    assert main(["patch", "inspect", str(none)]) == 0
