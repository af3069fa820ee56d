"""Patch files that lie, are damaged or were made to harm: each is refused in one line, or does exactly what it says."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import saved
from patches import NAME, OTHER, patch_for, patch_of, record, rewritten

from lce.cli import main
from lce.foundations.errors import LceError
from lce.patch import Patch
from lce.patch.on_folders import apply_patch
from lce.storage.changes import Change
from lce.storage.position_codec import decode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in ``model`` and a patch for it in ``p``."""
    folder = tmp_path_factory.mktemp("hostile")
    patch_for(saved("bert", folder / "model"), path=folder / "p")
    return folder


def steps(*values: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"steps/{NAME}": steps(0, 6, 92, 255, 255, 255)}, "leads to no position"),
        ({f"steps/{NAME}": steps(0, 6, 255, 255, 3, 4)}, "lies outside"),
        ({f"steps/{NAME}": steps(0, 6, 92)}, "3 positions, 4 were announced"),
        ({f"steps/{NAME}": steps(0, 6, 92, 1, 1)}, "5 positions, 4 were announced"),
        ({f"steps/{NAME}": steps(0, 6, 92, -3, dtype=torch.int8)}, "must be a vector of uint8"),
        ({f"steps/{NAME}": steps(0, 6, 92, 299, dtype=torch.int64)}, "must be a vector of uint8"),
        ({f"steps/{NAME}": torch.full((10_000,), 255, dtype=torch.uint8)}, "more steps than"),
        ({f"steps/{NAME}": steps(0, 6, 92, 2**32 - 2, dtype=torch.int64).to(torch.uint32)}, "lies outside"),
        ({f"new/{NAME}": torch.tensor([1.0, float("nan"), 1.0, 1.0])}, "not finite"),
        ({f"old/{NAME}": torch.tensor([1.0, float("inf"), 1.0, 1.0])}, "not finite"),
        ({f"new/{NAME}": torch.tensor([1.0, 2.0])}, r"expected F32 \(4,\) as new values"),
        ({f"new/{NAME}": torch.ones(4, dtype=torch.float16)}, "expected F32"),
        ({f"new/{NAME}": torch.ones(2, 2)}, "expected F32"),
        ({f"old/{NAME}": None}, "not those of its metadata"),
        ({"new/other": torch.ones(1)}, "not those of its metadata"),
        ({"extra": torch.ones(1)}, "not those of its metadata"),
        ({f"more/{n}": torch.ones(1) for n in (NAME, OTHER)}, "not those of its metadata"),
    ],
)
def test_tensors_that_contradict_the_metadata(
    folder: Path, tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(LceError, match=message) as error:
        Patch.load(rewritten(folder / "p", tensors))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", 2, "format version 2"),
        ("version", "1", "format version '1'"),
        ("format", "other", "is no lce patch"),
        ("base_fingerprint", "0", "base fingerprint"),
        ("provenance", [], "provenance is no mapping"),
        ("parameters", {}, "lists no parameters"),
        ("parameters", {"../../etc/passwd": {}}, "is no name of a parameter"),
        ("parameters", {"/absolute": {}}, "is no name of a parameter"),
        ("parameters", {"a..b": {}}, "is no name of a parameter"),
        ("parameters", {"a\\b": {}}, "is no name of a parameter"),
        ("parameters", {"\x1b[31mred": {}}, "is no name of a parameter"),
        ("parameters", {"": {}}, "is no name of a parameter"),
        ("parameters", {NAME: []}, "does not give shape"),
    ],
)
def test_lying_metadata(folder: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(LceError, match=message):
        Patch.load(rewritten(folder / "p", {}, **{key: value}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [16, 16], "lies outside"),
        ("shape", [32, 16], r"\(32, 16\) in the patch"),
        ("shape", [16, -32], "is no shape"),
        ("shape", [16, 32.0], "is no shape"),
        ("shape", [True, 512], "is no shape"),
        ("shape", [2**40, 2**40], "is no shape"),
        ("shape", "16", "does not give shape"),
        ("dtype", "I8", "is none of F64, F32"),
        ("dtype", "F16", "expected F16"),
        ("count", 3, r"expected F32 \(3,\)"),
        ("count", 0, "cannot change"),
        ("count", 10**9, "cannot change"),
        ("count", True, "cannot change"),
        ("sha256", "0" * 64, "base fingerprint"),
        ("sha256", "z", "is no SHA-256"),
        ("sha256_after", "z", "is no SHA-256"),
    ],
)
def test_lies_about_a_parameter(folder: Path, key: str, value: object, message: str) -> None:
    parameters = record(folder / "p")["parameters"]
    assert isinstance(parameters, dict)
    bad = rewritten(folder / "p", {}, parameters={**parameters, NAME: {**parameters[NAME], key: value}})
    with pytest.raises(LceError, match=message):
        apply_patch(folder / "model", Patch.load(bad), folder / "out")
    assert not (folder / "out").exists()


def test_old_values_that_are_not_the_base(folder: Path) -> None:
    """They would be written by a revert."""
    bad = rewritten(folder / "p", {f"old/{NAME}": torch.zeros(4)})
    with pytest.raises(LceError, match="not the base of this patch"):
        apply_patch(folder / "model", Patch.load(bad), folder / "out")
    apply_patch(folder / "model", Patch.load(folder / "p"), folder / "patched")
    command = ["patch", "revert", str(folder / "patched"), "--patch", str(bad), "--out", str(folder / "out")]
    assert main(command) == 2
    assert not (folder / "out").exists()


def test_values_that_are_not_finite_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = rewritten(folder / "p", {f"new/{NAME}": torch.full((4,), float("nan"))})
    command = ["patch", "inspect", str(bad)]
    assert main(command) == 2
    assert "not finite" in capsys.readouterr().err
    assert main([*command, "--allow_non_finite", "true"]) == 0


def header(content: bytes) -> dict[str, object]:
    length = struct.unpack("<Q", content[:8])[0]
    about: dict[str, object] = json.loads(content[8 : 8 + length])
    return about


def with_header(content: bytes, about: bytes) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    return struct.pack("<Q", len(about)) + about + content[8 + length :]


def test_damaged_files(folder: Path, tmp_path: Path) -> None:
    content = (folder / "p").read_bytes()
    about = header(content)
    twice = json.dumps(about)[:-1] + f', "new/{NAME}": ' + json.dumps(about[f"new/{NAME}"]) + "}"
    deep = json.dumps({**about, "__metadata__": {"lce": "[" * 100_000}})
    overlapping = {**about, f"new/{NAME}": about[f"old/{NAME}"]}
    for name, data in {
        "empty": b"",
        "text": b"hello",
        "cut": content[:-10],
        "short": content[:20],
        "longer": content + b"more",
        "endless header": struct.pack("<Q", 2**63 - 1) + content[8:],
        "huge header": struct.pack("<Q", 200_000_000) + content[8:],
        "no header": struct.pack("<Q", 0),
        "twice": with_header(content, twice.encode()),
        "deep": with_header(content, deep.encode()),
        "overlapping": with_header(content, json.dumps(overlapping).encode()),
        "no json": with_header(content, b"{" + b" " * 64),
    }.items():
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(LceError, match="bad: cannot be read") as error:
            Patch.load(tmp_path / "bad")
        assert "\n" not in str(error.value), name
    with pytest.raises(LceError, match="missing: cannot be read"):
        Patch.load(tmp_path / "missing")
    with pytest.raises(LceError, match="cannot be read"):
        Patch.load(tmp_path)


def test_what_a_patch_says_of_itself_is_shown_as_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = {
        "\x1b[2Jkey": "<script>alert(1)</script>\x1b[31m\nline | `x`",
        "scores": {"a": {"before": "?", "after": 1}, "b": 2},
    }
    bad = rewritten(folder / "p", {}, provenance=nasty)
    page = folder / "page.html"
    assert main(["patch", "inspect", str(bad), "--html", str(page)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert "<script>" not in page.read_text(encoding="utf-8")
    apply_patch(folder / "model", Patch.load(bad), folder / "carded")
    card = (folder / "carded/README.md").read_text(encoding="utf-8")
    assert "<script>" not in card
    assert "\x1b" not in card


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"provenance": {"a": json.loads("[" * 500 + "]" * 500)}}, "nested more than 20 deep"),
        ({"parameters": {NAME: {"shape": [2**61] * 100_000}}}, "is no shape"),
        ({"parameters": {"a" * 10**6 + "/": {}}}, "is no name of a parameter"),
    ],
)
def test_metadata_made_to_exhaust(folder: Path, changed: dict[str, object], message: str) -> None:
    parameters = record(folder / "p")["parameters"]
    assert isinstance(parameters, dict)
    if isinstance(about := changed.get("parameters"), dict) and NAME in about:
        changed = {"parameters": {NAME: parameters[NAME] | about[NAME]}}
    with pytest.raises(LceError, match=message) as error:
        Patch.load(rewritten(folder / "p", {}, **changed))
    assert len(str(error.value)) < 500


def test_steps_made_to_exhaust() -> None:
    with pytest.raises(LceError, match="more steps than"):
        decode(np.append(np.full(1_000_000, 255), 0).astype(np.uint8), 1, 2**40, "here")


def test_scores_and_names_out_of_the_ordinary_are_shown(folder: Path) -> None:
    odd = {"scores": {"weat8": {"before": 10**400, "after": float("1e300")}, "[x](y)": {"before": True, "after": []}}}
    names = [f"a.{'9' * 5000}.b.weight", *(f"h.{i}.{'c' * (i % 50 + 1)}" for i in range(999))]
    changes = {name: Change(torch.tensor([0]), torch.zeros(1), (2,)) for name in names}
    patch_of(changes, dict.fromkeys(names, torch.ones(2)), odd, path=folder / "odd")
    page = folder / "odd.html"
    assert main(["patch", "inspect", str(folder / "odd"), "--html", str(page)]) == 0
    assert page.stat().st_size < 2_000_000
