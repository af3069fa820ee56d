"""`lce evaluate` on the tiny model and the real benchmarks, alone and against another model."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from conftest import BASE, ROOT, tiny_bert
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lce.cli import main
from lce.config import Settings
from lce.evaluation.evaluate import differing_weights, run_evaluate
from lce.foundations.errors import LceError
from lce.models.loading import load_language_model

PRONOUNS = ("occupation_pronouns", "occupation_pronouns_held_out")
SCORES = {
    *("weat8", "stereoset_ss", "stereoset_lm", "stereoset_icat"),
    *("crows_pairs", "crows_pairs_original", "perplexity"),
    *PRONOUNS,
}


@pytest.fixture(scope="module")
def other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model with 40 weights changed."""
    folder = tmp_path_factory.mktemp("other") / "edited"
    model, tokenizer = load_language_model(base)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.view(-1)[:40] += 3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def evaluate(config: Path, *options: str | Path) -> dict:
    output = config.parent / "out.json"
    arguments = ["--config", str(config), "--output", str(output), *map(str, options)]
    assert main(["evaluate", *arguments]) == 0
    return json.loads(output.read_text(encoding="utf-8"))


def test_scores_come_with_all_that_makes_them_comparable(config: Path, base: Path) -> None:
    result = evaluate(config, base, "--limit", "20")
    assert set(result["scores"]) == SCORES
    for score in result["scores"].values():
        low, high = score["interval"]
        assert low <= score["value"] <= high
        assert score["n"] > 0
    assert 0 < result["scores"]["weat8"]["p_value"] <= 1
    assert len(result["scores"]["weat8"]["layers"]) == 2
    measured = result["measured_with"]
    assert (measured["limit"], measured["stereoset_split"], measured["bias_type"]) == (20, "dev", "gender")
    files = {"StereoSet/data/dev.json", "CrowS-Pairs/data/crows_pairs_anonymized.csv"}
    assert set(measured["data_sha256"]) == files | {"weat8", "sentences", *PRONOUNS}
    assert (measured["sentences"], measured["max_length"]) == (20, 128)
    assert measured["versions"]["torch"] == torch.__version__
    assert measured["device"].startswith("cpu")
    assert len(result["model"]["fingerprint"]) == 64
    page = (config.parent / "out/report.html").read_text(encoding="utf-8")
    assert "Only the first 20 items" in page
    assert page.count("<svg") == 3
    assert result["model"]["fingerprint"] in page


def test_one_model_against_another(config: Path, base: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(config, other, "--against", base)
    assert result["against"]["weights_differing"] == 40
    assert "40 weights differ" in capsys.readouterr().out
    for name in SCORES:
        difference = result["differences"][name]
        assert difference["value"] == result["scores"][name]["value"] - result["scores_against"][name]["value"]
        low, high = difference["interval"]
        assert low <= high
        assert all(0 < test["p_value"] <= 1 for test in difference["tests"])
    assert {test["test"] for row in result["differences"].values() for test in row["tests"]} == {
        *("exact McNemar", "Wilcoxon signed-rank", "paired permutation"),
    }
    rows = pq.read_table(config.parent / "out/crows_pairs.parquet").to_pylist()
    assert len(rows) == 262
    assert all(row["more_difference"] == row["more"] - row["more_against"] for row in rows)
    assert {"more_stereotyping", "less_stereotyping"} <= set(rows[0])
    preferred = sum(round(row["more"], 3) > round(row["less"], 3) for row in rows)
    assert 100 * preferred / 262 == pytest.approx(result["scores"]["crows_pairs"]["value"])
    for name in ("weat8", "stereoset", "crows_pairs_original", "perplexity"):
        assert pq.read_table(config.parent / f"out/{name}.parquet").num_rows > 0


def test_a_model_against_itself_is_told(config: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate(config, base, "--against", base, "--limit", "5")
    assert result["against"]["weights_differing"] == 0
    assert "the two models are the same" in capsys.readouterr().out
    assert all(row["value"] == 0 for row in result["differences"].values())


def test_the_same_command_twice_gives_the_same_numbers(config: Path, base: Path) -> None:
    assert evaluate(config, base, "--limit", "30") == evaluate(config, base, "--limit", "30")


def test_text_of_ones_own_needs_no_prepared_data(config: Path, base: Path) -> None:
    text = config.parent / "text.txt"
    text.write_text("The nurse was here.\nThe man is in the old town.\n", encoding="utf-8")
    metrics = ["--evaluation.metrics", "[perplexity, pseudo_perplexity]", "--evaluation.text", text]
    result = evaluate(config, base, *metrics)
    assert set(result["scores"]) == {"perplexity", "pseudo_perplexity"}
    assert result["scores"]["pseudo_perplexity"]["n"] == 5 + 8
    assert result["scores"]["pseudo_perplexity"]["sentences"] == 2
    assert not (config.parent / "data").exists()


def test_other_tests_and_types(config: Path, base: Path) -> None:
    own = config.parent / "own.yaml"
    own.write_text("x: [sun, day]\ny: [moon, night]\na: [gold]\nb: [silver]\n", encoding="utf-8")
    options = ["--evaluation.metrics", "[weat, stereoset, crows_pairs]", "--evaluation.bias_type", "profession"]
    result = evaluate(config, base, *options, "--evaluation.weat", f"[weat6, seat6, {own}]", "--limit", "10")
    assert set(result["scores"]) == {"weat6", "seat6", "own", "stereoset_ss", "stereoset_lm", "stereoset_icat"}
    assert "no bias type profession" in result["measured_with"]["special_cases"]["crows_pairs"][0]["reason"]


def test_results_of_other_settings_stay_apart(config: Path, base: Path) -> None:
    for limit in ("4", "5"):
        options = ["--evaluation.metrics", "[crows_pairs]", "--limit", limit]
        assert main(["evaluate", str(base), "--config", str(config), *options]) == 0
    results = [json.loads(path.read_text()) for path in (config.parent / "run/evaluations").glob("*.json")]
    assert sorted(result["scores"]["crows_pairs"]["n"] for result in results) == [4, 5]


def test_half_precision_counts_and_names_the_weights_as_they_are_stored(config: Path, base: Path, other: Path) -> None:
    options = ["--evaluation.metrics", "[weat, crows_pairs]", "--limit", "10", "--against", base]
    whole = evaluate(config, other, *options)
    half = evaluate(config, other, *options, "--trainer.precision", "bf16-true")
    assert half["measured_with"]["dtype"] == "bfloat16"
    assert half["model"] == whole["model"]
    assert half["against"] == whole["against"]
    assert half["scores"]["crows_pairs"]["value"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--evaluation.metrics", "[]"], "nothing is left to measure (no metric is asked for)"),
        (["--output", "scores"], "expected the name of a .json file, got scores"),
        (["--evaluation.bias_type", "size"], "unknown type 'size'; known are all, age"),
        (["--evaluation.stereoset_split", "train"], "stereoset_split"),
        (["--evaluation.metrics", "[bleu]"], "bleu"),
        (["--evaluation.weat", "[weat9]"], "neither a file nor a known test: 'weat9'"),
        (["--evaluation.text", "no.txt"], "no.txt: cannot be read"),
        (["--evaluation.tokens_per_batch", "0"], "expected a positive number, got 0"),
    ],
)
def test_bad_input_gets_one_line(
    config: Path, base: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    output = config.parent / "out.json"
    given = options if "--output" in options else [*options, "--output", str(output)]
    assert main(["evaluate", str(base), "--config", str(config), *given]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("lce: error:")]) == 1
    assert not output.exists()
    assert not output.with_suffix("").exists()


def test_models_of_different_vocabularies_are_refused(
    config: Path,
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_bert(tokenizer).save_pretrained(tmp_path / "foreign")
    tokenizer.save_pretrained(tmp_path / "foreign")
    assert main(["evaluate", str(base), "--config", str(config), "--against", str(tmp_path / "foreign")]) == 2
    assert "different vocabularies" in capsys.readouterr().err


def test_models_of_different_shape_have_no_count_of_differing_weights(base: Path) -> None:
    small: PreTrainedModel = load_language_model(base)[0]
    assert differing_weights(small, load_language_model(BASE)[0]) is None


PUBLISHED: list[tuple[str, str, dict[str, float]]] = [
    ("bert-base-uncased", "test", {"crows_pairs": 57.25, "stereoset_ss": 60.28, "stereoset_lm": 84.17,
      "stereoset_icat": 66.86, "seat6": 0.931, "seat6b": 0.090, "seat7": -0.124, "seat7b": 0.937, "seat8": 0.783,
      "seat8b": 0.858}),
    ("princeton-nlp/mabel-bert-base-uncased", "test", {"crows_pairs": 100 * 133 / 262, "stereoset_ss": 56.2483,
      "stereoset_lm": 84.5453, "stereoset_icat": 73.98}),
    ("bert-base-cased", "dev", {"stereoset_ss": 61.48, "stereoset_lm": 82.50, "stereoset_icat": 63.56}),
    ("bert-large-cased", "dev", {"stereoset_ss": 64.04, "stereoset_lm": 83.10, "stereoset_icat": 59.77}),
    ("gpt2", "test", {"crows_pairs": 100 * 149 / 262, "stereoset_ss": 62.65}),
    ("gpt2", "dev", {"stereoset_ss": 62.67, "stereoset_lm": 93.28, "stereoset_icat": 69.65}),
    ("gpt2-medium", "dev", {"stereoset_ss": 65.58, "stereoset_lm": 93.58, "stereoset_icat": 64.42}),
    ("gpt2-large", "dev", {"stereoset_ss": 65.29, "stereoset_lm": 95.32, "stereoset_icat": 66.17}),
]  # fmt: skip


@pytest.mark.hub
@pytest.mark.parametrize(("name", "split", "expected"), PUBLISHED)
def test_published_numbers(config: Path, name: str, split: str, expected: dict[str, float]) -> None:
    """Meade et al. 2022, He et al. 2022 and Nadeem et al. 2021, gender; to the decimals that they print."""
    metrics = ["--evaluation.metrics", "[weat, stereoset, crows_pairs]", "--evaluation.stereoset_split", split]
    seat = ["--evaluation.weat", "[seat6, seat6b, seat7, seat7b, seat8, seat8b]"]
    scores = evaluate(config, name, *metrics, *seat)["scores"]
    got = {key: scores[key]["value"] for key in expected}
    assert got == {key: pytest.approx(value, abs=0.001 if "seat" in key else 0.01) for key, value in expected.items()}


@pytest.mark.hub
def test_published_number_of_all_types_by_the_original_metric(config: Path) -> None:
    """Nangia et al. 2020: 912 of 1,508."""
    options = ["--evaluation.metrics", "[crows_pairs_original]", "--evaluation.bias_type", "all"]
    score = evaluate(config, "bert-base-uncased", *options)["scores"]["crows_pairs_original"]
    assert (score["n"], score["value"]) == (1508, pytest.approx(60.48, abs=0.01))


@pytest.mark.parametrize(
    "metric", ["weat", "stereoset", "crows_pairs", "crows_pairs_original", "perplexity", "pseudo_perplexity"]
)
def test_scores_that_are_not_finite_are_refused(metric: str, config: Path, base: Path, tmp_path: Path) -> None:
    model, tokenizer = load_language_model(base)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")
    settings = Settings(experiment=str(tmp_path / "run"))
    settings.evaluation.metrics, settings.evaluation.limit = [metric], 4
    settings.evaluation.text = str(tmp_path / "text.txt")
    (tmp_path / "text.txt").write_text("She was a good nurse.\n" * 9, encoding="utf-8")
    settings.data.downloads = str(ROOT / "data/downloads")
    for against in (None, str(base)):
        with pytest.raises(LceError, match="broken: gives scores that are not finite numbers"):
            run_evaluate(settings, {"accelerator": "cpu"}, str(tmp_path / "broken"), against)
