"""The scripts in examples/, run on the bundled model and on one that differs from it a little."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import planted
import pytest
import torch
from conftest import BASE, ROOT
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with noise on the weights of its layers."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(BASE, folder)
    tensors = load_file(folder / "model.safetensors")
    noise = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if name.endswith("dense.weight"):
            tensors[name] = tensor + (0.05 * torch.randn(tensor.shape, generator=noise)).to(tensor.dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def script(name: str, *arguments: str | Path) -> str:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def test_an_edit_is_tried_kept_and_applied(run, other: Path, tmp_path: Path) -> None:
    patch, out = tmp_path / "edit.safetensors", tmp_path / "patched"
    printed = run("edit_two_models.py", BASE, other, "--alpha", "2", "--share", "0.1", "--patch", patch)
    before, within, after = (re.search(rf"{when}: *(.*)", printed)[1] for when in ("before", "within", "after"))
    assert before == after != within
    [count] = re.findall(r"([\d,]+) changed weights", printed)

    printed = run("apply_a_patch.py", BASE, "--patch", patch, "--out", out)
    assert "is the base of this patch" in printed
    assert f"target: {BASE}" in printed
    assert "alpha: 2.0" in printed
    changed = [int(number.replace(",", "")) for number in re.findall(r": ([\d,]+) of [\d,]+ weights", printed)]
    assert sum(changed) == int(count.replace(",", ""))

    with pytest.raises(SystemExit) as end:
        run("apply_a_patch.py", out, "--patch", patch)
    assert not end.value.code


def test_two_models_are_compared(run, benchmarks: Path, other: Path) -> None:
    printed = run("compare_models.py", BASE, other, "--limit", "20", "--downloads", benchmarks.parent)
    names = [line.split()[0] for line in printed.splitlines()[1:]]
    assert names == ["weat8", "stereoset_ss", "stereoset_lm", "stereoset_icat", "crows_pairs"]
    model, against, difference = map(float, re.search(r"weat8 +(\S+) +(\S+) +(\S+)", printed).groups())
    assert abs(model - against - difference) < 0.02


def test_shares_are_compared_over_seeds(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write(name: str, seed: int, left: float, random: float | None, share: float = 0.01) -> None:
        edits = [
            {
                "alpha": alpha,
                "scores": {
                    "occupation_pronouns": {"before": 2.0, "after": left / alpha, "uninformed": random},
                    "perplexity": {"before": 100.0, "after": 100.0 + alpha, "uninformed": random and 100.5},
                },
            }
            for alpha in (2, 1)
        ]
        result = {"seed": seed, "selected": {"count": 5000, "share": share}, "edits": edits}
        (tmp_path / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")

    write("one", 0, 1.0, 1.9)
    write("same", 0, 1.0, None)
    write("two", 1, 1.5, None)
    write("elsewhere", 0, 1.8, None, share=0.5)
    printed = run("compare_shares.py", *sorted(tmp_path.glob("*.json")), "--out", tmp_path / "shares.png")
    rows = [line.split() for line in printed.splitlines()[1:4]]
    assert rows[0] == ["5,000", "1", "2", "1.25", "[1.00,", "1.50]", "1.90", "+1.0%"]
    assert rows[1] == ["5,000", "2", "2", "0.62", "[0.50,", "0.75]", "1.90", "+2.0%"]
    assert rows[2] == ["5,000", "1", "1", "1.80", "[1.80,", "1.80]", "–", "+1.0%"]
    assert (tmp_path / "shares.png").stat().st_size > 5000

    unmeasured = {"seed": 0, "selected": {"count": 9, "share": 0.1}, "alpha": 1, "scores": {}}
    (tmp_path / "unmeasured.json").write_text(json.dumps(unmeasured), encoding="utf-8")
    with pytest.raises(SystemExit):
        run("compare_shares.py", tmp_path / "unmeasured.json")
    assert "unmeasured.json: was not measured by occupation_pronouns and perplexity" in capsys.readouterr().err


def test_directions_are_tried_at_every_layer(run, tmp_path: Path) -> None:
    model, _ = planted.saved(tmp_path)
    printed = run("directions_by_layer.py", model, "1")
    assert float(re.search(r"unedited: (\S+) nats", printed)[1]) > 1
    assert re.findall(r"layer (\d+): (-?0\.00) nats left", printed)[0][0] == "1"
