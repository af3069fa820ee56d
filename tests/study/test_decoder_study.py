"""A study of a decoder: planned without being run, and one edit run after the trainings that it needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from causal_models import saved
from conftest import write_config

from lce.cli import main
from lce.models.layers import prunable_parameters
from lce.models.loading import load_language_model
from lce.study.report.results import load_study
from lce.study.sweep import status

FOLDERS = ("base", "study/seed-0/neutral/sparsity-00", "study/seed-0/neutral/sparsity-40")


@pytest.fixture
def study(tmp_path: Path, sentences_file: Path, benchmarks: Path) -> Path:
    config = write_config(tmp_path, saved("llama", tmp_path / "base"), sentences_file, benchmarks.parent)
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    for key in ("random_baselines", "sparsities", "sparsity"):
        del settings[key]
    settings |= {
        "experiment": str(tmp_path / "study"),
        "seeds": [0, 1],
        "variants": ["stereotypical", "anti-stereotypical", "neutral"],
        "untrained": ["neutral"],
        "sparsities": [0.4],
        "sparsity": 0.4,
        "evaluation": {"metrics": ["crows_pairs", "occupation_pronouns", "perplexity"], "limit": 4},
        "edits": [
            {
                "sparsities": [0.4],
                "pairs": [["stereotypical", "anti-stereotypical"]],
                "localizations": ["value"],
                "share": [0.1],
                "alpha": [2],
            }
        ],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def test_a_study_of_a_decoder(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--config", str(study), "--dry-run"]) == 0
    assert not (tmp_path / "study/cells").exists()
    assert main(["sweep", "--config", str(study)]) == 0
    found = status(*load_study(tmp_path / "study"))
    assert not found.failed
    assert not found.left
    results = [json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "study/cells").glob("*.json")]
    edits = [result for result in results if result["cell"]["kind"] == "edit"]
    assert len(edits) == 2
    assert all({"crows_pairs", "occupation_pronouns", "perplexity"} <= set(edit["scores"]) for edit in edits)
    measured = [result for result in results if result["cell"]["kind"] == "measure"]
    assert len(measured) == 12
    assert len(list((tmp_path / "study/scores").iterdir())) == 10, "the base, dense and sparse, is measured once"
    assert json.loads((tmp_path / "study/base.json").read_text(encoding="utf-8"))["kind"] == "causal"
    base, dense, sparse = (load_language_model(tmp_path / folder)[0] for folder in FOLDERS)
    for name, weight in prunable_parameters(base).items():
        assert torch.equal(weight, dense.get_parameter(name)), "the neutral model is the base"
        kept = sparse.get_parameter(name) != 0
        assert torch.equal(weight * kept, sparse.get_parameter(name))
    assert main(["report", str(tmp_path / "study")]) == 0
    assert "| stereotypical: occupation pronouns |" in (tmp_path / "study/report/tables.md").read_text(encoding="utf-8")
