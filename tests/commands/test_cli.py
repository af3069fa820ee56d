"""The whole pipeline through the command line, on the tiny model and the real benchmarks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from conftest import BASE, write_config
from transformers import AutoModelForMaskedLM

from lce.cli import main
from lce.commands.registry import COMMANDS
from lce.foundations.labels import label
from lce.patch import Patch

METRICS = ("weat8", "stereoset_ss", "stereoset_lm", "crows_pairs", "crows_pairs_original", "perplexity")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path, sentences_file: Path, benchmarks: Path) -> Path:
    config = write_config(tmp_path_factory.mktemp("trained"), base, sentences_file, benchmarks.parent)
    for variant in ("stereotypical", "anti-stereotypical"):
        options = ["--config", str(config), "--sparsities", "[0.4]", "--variant", variant]
        assert main(["train", *options]) == 0
    return config


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.rstrip("\n").splitlines()[-1]


def edit(config: Path, *options: str) -> list[str]:
    return ["edit", "--config", str(config), "--sparsities", "[0.4]", *options]


def test_edit_keeps_the_contract(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(edit(trained, "--alpha", "2")) == 0
    *printed, result_file = capsys.readouterr().out.rstrip("\n").splitlines()
    result = json.loads(Path(result_file).read_text(encoding="utf-8"))
    for metric in METRICS:
        row = result["scores"][metric]
        draws = row["uninformed_draws"]
        assert len(draws) == (1 if metric == "crows_pairs_original" else 2)
        assert row["uninformed"] == pytest.approx(mean(draws))
        assert row["uninformed_std"] == (pytest.approx(stdev(draws)) if len(draws) > 1 else None)
        [line] = [line for line in printed if line.lstrip("│ ").startswith(f"{label(metric)} ")]
        numbers = re.findall(r"-?\d+\.\d\d", line)
        wanted = [row["before"], row["after"], row["uninformed"], row["uninformed_std"], row["reference"]]
        assert numbers == [f"{value:.2f}" for value in wanted if value is not None]
    assert result["edited"]["count"] == sum(about["count"] for about in result["edited"]["by_component"].values())
    assert (result["alpha"], result["strategy"], result["localization"]) == (2.0, "linear", "mask")
    assert (result["sparsity"], result["seed"]) == (0.4, 0)
    assert result["scores"]["crows_pairs"]["n"] == 262

    out, back = trained.parent / "out", trained.parent / "back"
    assert main(["patch", "apply", result["target"], "--patch", result["patch"], "--out", str(out)]) == 0
    assert main(["patch", "revert", str(out), "--patch", result["patch"], "--out", str(back)]) == 0
    assert (back / "model.safetensors").read_bytes() == Path(result["target"], "model.safetensors").read_bytes()
    patched, target = (
        dict(AutoModelForMaskedLM.from_pretrained(f).named_parameters()) for f in (out, result["target"])
    )
    assert sum(int((patched[name] != target[name]).sum()) for name in target) == result["edited"]["count"]
    assert Patch.load(result["patch"]).provenance["alpha"] == 2.0

    scores_file = trained.parent / "scores.json"
    capsys.readouterr()
    command = ["evaluate", str(out), "--against", result["reference"], "--config", str(trained)]
    assert main([*command, "--output", str(scores_file)]) == 0
    evaluation = json.loads(scores_file.read_text(encoding="utf-8"))
    for metric in METRICS:
        row = result["scores"][metric]
        assert evaluation["scores"][metric]["value"] == pytest.approx(row["after"], abs=1e-6)
        assert evaluation["scores_against"][metric]["value"] == pytest.approx(row["reference"], abs=1e-6)
        assert evaluation["scores"][metric]["n"] > 0

    made = Path(result_file).stat().st_mtime_ns
    assert main(edit(trained, "--alpha", "2")) == 0
    assert last_line(capsys) == result_file
    assert Path(result_file).stat().st_mtime_ns == made, "a result that exists is not made again"


def test_several_alphas_in_one_process(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--alpha", "0", "0.5", "-2", "--random_baselines", "1"]
    assert main(edit(trained, *options)) == 0
    path = Path(last_line(capsys))
    edits = json.loads(path.read_text(encoding="utf-8"))["edits"]
    assert [one["alpha"] for one in edits] == [0, 0.5, -2]
    assert edits[0]["patch"] is None
    assert edits[0]["scores"]["weat8"]["after"] == edits[0]["scores"]["weat8"]["before"]
    assert edits[0]["scores"]["weat8"]["uninformed"] == edits[0]["scores"]["weat8"]["before"]
    assert len({one["scores"]["weat8"]["after"] for one in edits}) == 3
    assert (path.parent / "alpha.png").exists()
    assert (path.parent / "selection.png").exists()
    assert (path.parent / "config.yaml").exists()


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--localization", "value", "--count", "25"], 25),
        (["--localization", "value", "--share", "0.1", "--strategy", "pruning"], None),
        (["--strategy", "mask-switch"], None),
    ],
)
def test_other_edits(trained: Path, capsys: pytest.CaptureFixture[str], options: list[str], count: int | None) -> None:
    assert main(edit(trained, "--random_baselines", "1", *options)) == 0
    result = json.loads(Path(last_line(capsys)).read_text(encoding="utf-8"))
    assert result["edited"]["count"] == count if count else result["edited"]["count"] > 0


def test_localize_writes_a_selection_that_edit_takes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    selection = trained.parent / "s.safetensors"
    options = ["--config", str(trained), "--sparsities", "[0.4]", "--output", str(selection)]
    assert main(["localize", *options]) == 0
    assert last_line(capsys) == str(selection)
    assert selection.with_suffix(".png").exists()
    assert main(edit(trained, "--selection", str(selection), "--random_baselines", "1")) == 0
    result = json.loads(Path(last_line(capsys)).read_text(encoding="utf-8"))
    assert result["selected"]["count"] >= result["edited"]["count"] > 0
    turned = edit(trained, "--selection", str(selection), "anti-stereotypical", "stereotypical")
    assert main(turned) == 2
    assert "made for other models" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0"], "alpha: 0 changes nothing"),
        (["--alpha", ".inf"], "expected finite numbers"),
        (["--alpha", "1e39"], "not finite"),
        (["--reference", "stereotypical"], "are the same model"),
        (["--localization", "value", "--strategy", "mask-switch"], "needs a mask-based selection"),
        (["--localization", "layer"], "localization"),
        (["--seed", "7"], "`lce train --variant stereotypical`"),
        (["--reference", "no/such/model"], "model no/such/model"),
        (["--sparsity", "0.0", "--localization", "mask"], "is not pruned"),
        (["--strength", "2"], "--strength"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    trained: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    capsys.readouterr()
    edits = trained.parent / "run/seed-0/edits"
    present = sorted(edits.glob("*"))
    assert main(edit(trained, *options)) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("lce: error:")]) == 1
    assert sorted(edits.glob("*")) == present


def test_models_that_do_not_fit_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundled = ["--reference", str(BASE), "--localization", "value"]
    assert main(edit(trained, *bundled)) == 2
    assert "to leave such tensors out" in capsys.readouterr().err


def test_unknown_keys_in_a_configuration_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("train:\n  stepz: 3\n", encoding="utf-8")
    assert main(["train", "--config", str(tmp_path / "bad.yaml")]) == 2
    assert "stepz" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quickstart", "bert-base"])
def test_bundled_configurations_are_understood(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Path(__file__).parents[2] / f"configs/{name}.yaml"
    seen: dict[str, Any] = {}
    known = COMMANDS["train"][1]
    monkeypatch.setitem(COMMANDS, "train", (lambda values: seen.update(values.as_dict()), known))
    assert main(["train", "--config", str(config)]) == 0
    assert seen["experiment"] == f"runs/{name}"
    if name == "bert-base":
        train = seen["train"].as_dict() if hasattr(seen["train"], "as_dict") else vars(seen["train"])
        assert (train["steps"], train["batch_size"], train["learning_rate"]) == (3 * 4627, 64, 1e-5)
        assert train["freeze"] == []


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["edit", "--help"])
    printed = capsys.readouterr().out
    assert "Random selections of the same size" in printed
    assert "--train.max_length" in printed


def test_a_neutral_model_can_be_the_target(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", str(trained), "--sparsities", "[0.4]"]
    assert main(["train", *options, "--variant", "neutral"]) == 0
    assert main(edit(trained, "--target", "neutral", "--alpha", "-2", "--random_baselines", "0")) == 0
    result = json.loads(Path(last_line(capsys)).read_text(encoding="utf-8"))
    assert Path(result["target"]).parent.name == "neutral"
    assert result["scores"]["weat8"]["uninformed"] is None


def test_predictions_of_a_trained_level_come_from_plain_transformers(trained: Path) -> None:
    folder = trained.parent / "run/seed-0/stereotypical/sparsity-40"
    model = AutoModelForMaskedLM.from_pretrained(folder)
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=torch.tensor([[2, 4, 3]])).logits).all()
