from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import own_sentences
from transformers import PreTrainedModel

from lce.config import Settings
from lce.evaluation.evaluator import Evaluator
from lce.foundations.errors import LceError
from lce.models.loading import load_language_model


@pytest.fixture
def settings(tmp_path: Path, downloads: Path) -> Settings:
    settings = Settings(experiment=str(tmp_path / "run"))
    settings.evaluation.metrics, settings.evaluation.limit = ["weat", "crows_pairs", "perplexity"], 8
    settings.evaluation.text = str(tmp_path / "text.txt")
    (tmp_path / "text.txt").write_text("\n".join(own_sentences()[::20]), encoding="utf-8")
    settings.data.downloads = str(downloads)
    return settings


@pytest.fixture
def loaded(base: Path) -> PreTrainedModel:
    return load_language_model(base)[0]


def evaluator(settings: Settings, base: Path, **options: object) -> Evaluator:
    return Evaluator(settings, {"accelerator": "cpu", **options}, load_language_model(base)[1])


def test_metrics_and_scores(settings: Settings, base: Path, loaded: PreTrainedModel) -> None:
    loaded.train()
    made = evaluator(settings, base)
    assert [metric.name for metric in made.metrics(loaded)] == ["weat8", "crows_pairs", "perplexity"]
    assert set(made.scores(loaded, leave_out=("weat8", "perplexity"))) == {"crows_pairs"}
    assert loaded.training, "the model's mode is put back"
    assert all(parameter.grad is None for parameter in loaded.parameters())


def test_benchmarks_need_no_text(settings: Settings, base: Path, loaded: PreTrainedModel) -> None:
    settings.evaluation.metrics, settings.evaluation.text = ["weat"], "no such file"
    made = evaluator(settings, base)
    assert set(made.scores(loaded)) == {"weat8"}
    assert made.provenance()["sentences"] == 0


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_every_precision_masks_the_same_tokens(
    precision: str, settings: Settings, base: Path, loaded: PreTrainedModel
) -> None:
    settings.evaluation.metrics = ["perplexity"]
    exact = evaluator(settings, base).metrics(loaded)[0].items()
    made = evaluator(settings, base, precision=precision)
    items = made.metrics(loaded)[0].items()
    assert items["tokens"].tolist() == exact["tokens"].tolist()
    assert items["loss"] == pytest.approx(exact["loss"], rel=0.03)
    dtypes = {"64-true": torch.float64, "bf16-true": torch.bfloat16}
    assert loaded.dtype == dtypes.get(precision, torch.float32)
    assert made.provenance()["dtype"] == str(loaded.dtype).removeprefix("torch.")


def test_scores_of_an_unedited_model_are_kept(settings: Settings, base: Path, loaded: PreTrainedModel) -> None:
    made = evaluator(settings, base)
    scores = made.unedited(loaded)
    [kept] = made.kept_scores.iterdir()
    assert scores == json.loads(kept.read_text(encoding="utf-8")) == json.loads(json.dumps(made.scores(loaded)))
    kept.write_text('{"weat8": {"value": 0}}', encoding="utf-8")
    assert made.unedited(loaded) == {"weat8": {"value": 0}}
    with torch.no_grad():
        loaded.bert.encoder.layer[0].output.dense.weight[0] += 1
    assert made.unedited(loaded)["perplexity"] != scores["perplexity"]


@pytest.mark.parametrize("metric", ["perplexity", "pseudo_perplexity"])
def test_kept_scores_are_of_the_same_text(metric: str, settings: Settings, base: Path, loaded: PreTrainedModel) -> None:
    settings.evaluation.metrics = [metric]  # type: ignore[list-item]
    before = evaluator(settings, base).unedited(loaded)
    Path(settings.evaluation.text or "").write_text("\n".join(own_sentences()[1::20]), encoding="utf-8")
    made = evaluator(settings, base)
    after = made.unedited(loaded)
    assert after == json.loads(json.dumps(made.scores(loaded)))
    assert after[metric]["value"] != before[metric]["value"]


def test_a_text_without_any_masked_token_is_refused(settings: Settings, base: Path, loaded: PreTrainedModel) -> None:
    Path(settings.evaluation.text or "").write_text("He.", encoding="utf-8")
    with pytest.raises(LceError, match="no token of these few sentences is masked"):
        evaluator(settings, base).scores(loaded)
