"""No command writes over a file that lce did not make as that kind of file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import saved
from killing import contents

from lce.cli import main
from lce.foundations.errors import LceError
from lce.foundations.files import save_config
from lce.foundations.overwriting import KINDS, check_replaceable


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models a and b, a patch between them, a selection of an edit of theirs, and somebody's own files."""
    monkeypatch.chdir(tmp_path)  # where results go by default
    model = saved("bert", tmp_path / "a")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    model.save_pretrained(tmp_path / "b")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["patch", "diff", a, b, "--out", str(tmp_path / "p.safetensors")]) == 0
    assert main(["edit", a, b, "--patch", str(tmp_path / "e.safetensors")]) == 0
    assert main(["localize", a, b, "--output", str(tmp_path / "s.safetensors")]) == 0
    for name in ("mine.json", "mine.yaml", "mine.html", "mine.png", "mine.txt"):
        (tmp_path / name).write_text('{"mine": 1}', encoding="utf-8")
    (tmp_path / "reported").mkdir()
    (tmp_path / "reported/report.json").write_text('{"mine": 1}', encoding="utf-8")
    save_config(tmp_path / "swept/config.yaml", {"seeds": [0]}, "sweep")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/config.yaml").write_text("mine: 1\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["edit", "{}/a", "{}/b", "--patch", "{}/a/model.safetensors"],
        ["edit", "{}/a", "{}/b", "--patch", "{}/s.safetensors"],
        ["edit", "{}/a", "{}/b", "--patch", "{}/mine.txt", "--output", "{}/EDITED"],
        ["edit", "{}/a", "{}/b", "--selection", "{}/s.safetensors", "--patch", "{}/s.safetensors"],
        ["localize", "{}/a", "{}/b", "--output", "{}/b/model.safetensors"],
        ["localize", "{}/a", "{}/b", "--output", "{}/p.safetensors"],
        ["localize", "{}/a", "{}/b", "--output", "{}/mine.safetensors"],  # its heat map would be mine.png
        ["localize", "{}/a", "{}/b", "--output", "{}/new.png"],
        ["localize", "--output", "{}/new.yaml"],
        ["localize", "--output", "{}/mine.safetensors"],
        ["patch", "diff", "{}/a", "{}/b", "--out", "{}/b/model.safetensors"],
        ["patch", "diff", "{}/a", "{}/b", "--out", "{}/b/config.json"],
        ["patch", "compose", "{}/p.safetensors", "{}/e.safetensors", "--out", "{}/a/model.safetensors"],
        ["patch", "compose", "{}/e.safetensors", "{}/e.safetensors", "--out", "{}/e.safetensors"],
        ["patch", "scale", "--patch", "{}/e.safetensors", "--alpha", "3", "--out", "{}/a/model.safetensors"],
        ["patch", "scale", "--patch", "{}/e.safetensors", "--alpha", "3", "--out", "{}/e.safetensors"],
        ["patch", "inspect", "{}/p.safetensors", "--html", "{}/p.safetensors"],
        ["patch", "inspect", "{}/p.safetensors", "--html", "{}/mine.html"],
        ["evaluate", "{}/a", "--output", "{}/a/config.json"],
        ["evaluate", "{}/a", "--output", "{}/mine.json"],
        ["evaluate", "{}/a", "--output", "{}/results.json"],  # its items and its page would go to results/
        ["train", "--output", "{}/mine.json", "--data.folder", "{}/data"],
        ["edit", "--output", "{}/results", "--data.folder", "{}/data"],
        ["data", "--data.folder", "{}/results"],
        ["data", "--data.folder", "{}/reported"],
        ["sweep", "--experiment", "{}/results"],
        ["evaluate", "{}/a", "--output", "{}/swept.json"],  # its items would go to the folder of a study
    ],
)
def test_what_lce_did_not_make_stays(
    folder: Path, command: list[str], capfd: pytest.CaptureFixture[str], config: Path
) -> None:
    before = contents(folder)
    on_checkpoints = command[0] == "patch" or (command[1] == "{}/a" and command[0] != "evaluate")
    settings = [] if on_checkpoints or command[0] == "sweep" else ["--config", str(config)]
    capfd.readouterr()
    assert main([part.replace("{}", str(folder)) for part in command] + settings) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lce: error:")]
    assert len(errors) == 1
    made = ("data/", "run/")
    left = {name: digest for name, digest in contents(folder).items() if not name.startswith(made)}
    left = {name: digest for name, digest in left.items() if not name.endswith(".lock")}
    assert left == before


def test_what_lce_made_is_made_anew(folder: Path) -> None:
    a, b = str(folder / "a"), str(folder / "b")
    for command in (
        ["patch", "diff", a, b, "--out", str(folder / "p.safetensors"), "--old_values", "false"],
        ["edit", a, b, "--alpha", "3", "--patch", str(folder / "e.safetensors")],
        ["localize", a, b, "--share", "0.2", "--output", str(folder / "s.safetensors")],
        ["patch", "inspect", str(folder / "p.safetensors"), "--html", str(folder / "p.html")],
        ["patch", "inspect", str(folder / "p.safetensors"), "--html", str(folder / "p.html")],
    ):
        assert main(command) == 0, command


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"[" * 10_000, b"[]", b'"text"', b"\xff\xfe", b"9" * 5000])
def test_odd_files_are_somebody_elses(kind: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(content)
    for path in (tmp_path / "odd", tmp_path):
        with pytest.raises(LceError, match="made by lce; it is left as it is"):
            check_replaceable(path, kind)
