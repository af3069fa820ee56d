"""The whole pipeline on tiny decoders of the types that users ask for, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_models import NAMED, saved
from conftest import write_config
from transformers import AutoModelForCausalLM

from lce.cli import main
from lce.localize.selection import Selection
from lce.models.loading import load_language_model
from lce.storage.in_memory import load_subnetwork

VARIANTS = ("stereotypical", "anti-stereotypical")
FAST = ["--train.steps", "5", "--sparsities", "[0.4]", "--random_baselines", "1", "--evaluation.limit", "4"]


def result_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("kind", NAMED)
def test_train_prune_localise_edit_measure_and_patch(
    kind: str, tmp_path: Path, sentences_file: Path, benchmarks: Path
) -> None:
    base = saved(kind, tmp_path / "base")
    options = ["--config", str(write_config(tmp_path, base, sentences_file, benchmarks.parent)), *FAST]
    training = [*options[:2], *FAST[:4]]
    for variant in VARIANTS:
        assert main(["train", *training, "--variant", variant]) == 0
    models = [tmp_path / f"run/seed-0/{variant}/sparsity-40" for variant in VARIANTS]
    names = list(Selection.load(_localized(training, tmp_path)).shapes)
    subnetwork = load_subnetwork(models[0], names)
    assert subnetwork.sparsity == pytest.approx(0.4, abs=1e-3)
    assert not any(part in name for name in names for part in ("embed", "wte", "lm_head", "norm", "ln_"))

    output = tmp_path / "result"
    edit = ["--patch", str(tmp_path / "p.safetensors"), "--edited", str(tmp_path / "edited"), "--output", str(output)]
    evaluation = [option for option in options if option not in ("--train.steps", "5")]
    assert main(["edit", *VARIANTS, *evaluation, "--alpha", "2", *edit]) == 0
    result = result_of(output)
    wanted = {"weat8", "stereoset_ss", "stereoset_lm", "crows_pairs", "occupation_pronouns", "perplexity"}
    assert wanted <= set(result["scores"])
    assert "crows_pairs_original" not in result["scores"], "it masks tokens"
    assert result["scores"]["occupation_pronouns"]["before"] != result["scores"]["occupation_pronouns"]["after"]

    assert main(["patch", "apply", str(models[0]), "--patch", str(edit[1]), "--out", str(tmp_path / "applied")]) == 0
    first, second = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("edited", "applied"))
    changed = 0
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
        changed += int((parameter != load_language_model(models[0])[0].get_parameter(name)).sum())
    assert changed == result["edited"]["count"] > 0


def _localized(options: list[str], folder: Path) -> Path:
    path = folder / "selection.safetensors"
    options = [option for option in options if option not in ("--train.steps", "5")]
    assert main(["localize", *VARIANTS, *options, "--output", str(path)]) == 0
    return path


def test_a_decoder_is_evaluated_alone_and_against_another(
    tmp_path: Path, sentences_file: Path, benchmarks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [saved("llama", tmp_path / name, seed) for seed, name in enumerate(("one", "two"))]
    config = write_config(tmp_path, folders[0], sentences_file, benchmarks.parent)
    output = tmp_path / "scores.json"
    options = ["--config", str(config), "--limit", "6", "--output", str(output)]
    assert main(["evaluate", str(folders[0]), "--against", str(folders[1]), *options]) == 0
    found = json.loads(output.read_text(encoding="utf-8"))
    for name in ("crows_pairs", "stereoset_ss", "stereoset_lm", "occupation_pronouns", "perplexity"):
        assert {"value", "n", "interval"} <= set(found["scores"][name])
        assert {"value", "n", "interval", "tests"} <= set(found["differences"][name])
    assert found["measured_with"]["start_token"] == "<s>"
    assert found["measured_with"]["kind"] == "causal"
    assert found["measured_with"]["mask_probability"] is None
    assert (tmp_path / "scores/report.html").exists()
    assert (tmp_path / "scores/occupation_pronouns.parquet").exists()
    assert "occupation pronouns" in capsys.readouterr().out
