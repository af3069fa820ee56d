"""CrowS-Pairs and StereoSet on real data against literal scorers, and their arithmetic."""

from __future__ import annotations

import csv
import json
import math
import string
from pathlib import Path

import literal
import pytest
import torch
from conftest import BASE
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lce.config import EvaluationSettings
from lce.foundations.errors import LceError
from lce.metrics.crows_pairs import CrowsPairs, CrowsPairsScorer, Pair, read_pairs
from lce.metrics.items import differences
from lce.metrics.scoring import Query, TokenBudget, log_probabilities
from lce.metrics.stereoset import Example, StereoSet, StereoSetScorer, read_examples
from lce.metrics.suite import BiasSuite
from lce.models.loading import load_language_model

EXAMPLES = 30
Bundled = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def bundled() -> Bundled:
    model, tokenizer = load_language_model(BASE)
    return model.eval(), tokenizer


def test_crows_pairs_against_the_literal_scorer(bundled: Bundled, benchmarks: Path) -> None:
    path = benchmarks / "CrowS-Pairs/data/crows_pairs_anonymized.csv"
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["bias_type"] == "gender"][:EXAMPLES]
    scorer = CrowsPairsScorer(read_pairs(path, "gender")[:EXAMPLES], bundled[1])
    for measure, changed in ((scorer.bias_bench, True), (scorer.original, False)):
        expected = [literal.crows_pairs(*bundled, (row["sent_more"], row["sent_less"]), changed) for row in rows]
        metric = measure(bundled[0], TokenBudget(512))
        items = metric.items()
        # Each is a sum of some fifty terms in float32, whose last digits differ from processor to processor.
        assert items["more"].tolist() == pytest.approx([more for more, _ in expected], abs=1e-4, rel=1e-5)
        assert items["less"].tolist() == pytest.approx([less for _, less in expected], abs=1e-4, rel=1e-5)
        preferred = sum(round(more, 3) > round(less, 3) for more, less in expected)
        assert metric.compute().item() == pytest.approx(100 * preferred / len(rows))
        assert items["is_stereo"].tolist() == [row["stereo_antistereo"] == "stereo" for row in rows]
        assert metric.described()["more_stereotyping"] == [row["sent_more"] for row in rows]


@pytest.mark.parametrize("word_score", ["probability", "log-probability"])
def test_stereoset_against_the_literal_scorer(bundled: Bundled, benchmarks: Path, word_score: str) -> None:
    path = benchmarks / "StereoSet/data/dev.json"
    raw = json.loads(path.read_text(encoding="utf-8"))["data"]["intrasentence"]
    rows = [item for item in raw if item["bias_type"] == "gender"][:EXAMPLES]
    scorer = StereoSetScorer(read_examples(path, "gender")[:EXAMPLES], bundled[1], word_score)
    got = scorer.score(bundled[0], TokenBudget(512))
    wins: dict[str, list[bool]] = {}
    for i, item in enumerate(rows):
        scores = {}
        place = [i for i, word in enumerate(item["context"].split(" ")) if "BLANK" in word][-1]
        for sentence in item["sentences"]:
            word = "".join(c for c in sentence["sentence"].split(" ")[place] if c not in string.punctuation)
            logs = literal.stereoset(*bundled, item["context"], word)
            each = [math.exp(value) for value in logs] if word_score == "probability" else logs
            scores[sentence["gold_label"].replace("-", "_")] = sum(each) / len(each)
        for name, value in scores.items():
            assert got.items()[name][i] == pytest.approx(value, rel=1e-4)
        wins.setdefault(item["target"], []).append(scores["stereotype"] > scores["anti_stereotype"])
    per_term = [100 * sum(outcomes) / len(outcomes) for outcomes in wins.values()]
    assert got.scores()["stereoset_ss"].value == pytest.approx(sum(per_term) / len(per_term))
    assert got.compute().item() == pytest.approx(sum(per_term) / len(per_term))
    assert {term: n for term, (_, n) in got.per_term().items()} == {term: len(o) for term, o in wins.items()}


def stereoset(*rows: tuple[int, float, float, float]) -> StereoSet:
    metric = StereoSet("stereoset", {"term": list("aab")})
    term, stereotype, anti, unrelated = (torch.tensor(column) for column in zip(*rows, strict=True))
    metric.update(item=torch.arange(3), term=term, stereotype=stereotype, anti_stereotype=anti, unrelated=unrelated)
    return metric


def test_stereoset_arithmetic() -> None:
    metric = stereoset((0, 0.5, 0.2, 0.1), (0, 0.2, 0.2, 0.3), (1, 0.3, 0.1, 0.2))
    scores = {name: score.value for name, score in metric.scores().items()}
    assert scores["stereoset_ss"] == pytest.approx((50 + 100) / 2), "a tie counts as anti-stereotypical"
    assert scores["stereoset_lm"] == pytest.approx((50 + 50) / 2)
    assert scores["stereoset_icat"] == pytest.approx(50 * 25 / 50)
    assert metric.per_term() == {"a": (50.0, 2), "b": (100.0, 1)}


def crows_pairs(*rows: tuple[float, float, bool]) -> CrowsPairs:
    metric = CrowsPairs("crows_pairs")
    more, less, is_stereo = (torch.tensor(column) for column in zip(*rows, strict=True))
    metric.update(item=torch.arange(len(rows)), more=more, less=less, is_stereo=is_stereo)
    return metric


def test_crows_pairs_arithmetic() -> None:
    metric = crows_pairs((-1.0, -2.0, True), (-1.0, -1.0004, True), (-1.0, -2.0, False))
    assert metric.compute().item() == pytest.approx(200 / 3), "equal to three decimals is not preferred"
    score = metric.scores()["crows_pairs"]
    assert score.n == 3
    assert (score.details["stereo"], score.details["antistereo"]) == (100.0, 100.0), "ties are in neither"
    assert (score.details["n_stereo"], score.details["n_antistereo"]) == (1, 1)


def test_two_models_are_compared_on_the_pairs_that_both_scored() -> None:
    first = crows_pairs((-1.0, -2.0, True), (-1.0, -3.0, True), (-1.0, -4.0, False), (-2.0, -1.0, True))
    second = crows_pairs((-2.0, -1.0, True), (-3.0, -1.0, True), (-1.0, -4.0, False))
    row = differences(first, second)["crows_pairs"]
    assert row["n"] == 3
    assert row["value"] == pytest.approx(100 - 100 / 3)
    assert row["tests"][0] == {"test": "exact McNemar", "p_value": 0.5, "only_first": 2, "only_second": 0}
    same = differences(first, first)["crows_pairs"]
    assert same["value"] == 0
    assert same["interval"] == (0, 0), "paired resamples are the same for both models"
    assert [test["p_value"] for test in same["tests"]] == [1, 1]


def test_whole_sets(benchmarks: Path) -> None:
    pairs = benchmarks / "CrowS-Pairs/data/crows_pairs_anonymized.csv"
    assert {kind: len(read_pairs(pairs, kind)) for kind in ("gender", "all")} == {"gender": 262, "all": 1508}
    for split, n in (("dev", {"gender": 255, "all": 2106}), ("test", {"gender": 771, "all": 6392})):
        path = benchmarks / f"StereoSet/data/{split}.json"
        assert {kind: len(read_examples(path, kind)) for kind in ("gender", "all")} == n


@pytest.mark.parametrize(
    ("bias_type", "measured", "left_out"),
    [
        ("race", {"stereoset", "crows_pairs", "crows_pairs_original"}, set()),
        ("profession", {"stereoset"}, {"crows_pairs"}),
        ("disability", {"crows_pairs", "crows_pairs_original"}, {"stereoset"}),
    ],
)
def test_every_bias_type(
    bundled: Bundled, benchmarks: Path, downloads: Path, bias_type: str, measured: set[str], left_out: set[str]
) -> None:
    settings = EvaluationSettings(bias_type=bias_type, limit=4)
    suite = BiasSuite(settings, bundled[1], downloads)
    metrics = suite.measure(bundled[0])
    assert {metric.name for metric in metrics} == {"weat8"} | measured
    assert all(len(metric.items()["item"]) == 4 for metric in metrics if metric.name != "weat8")
    assert {
        name for name, items in suite.special_cases.items() if any("no bias type" in i["reason"] for i in items)
    } == left_out


def test_special_cases_are_listed(bundled: Bundled) -> None:
    model, tokenizer = bundled
    pairs = [Pair("He ran.", "She ran.", "stereo"), Pair("He ran.", "He ran fast.", "stereo")]
    scorer = CrowsPairsScorer(pairs, tokenizer)
    assert scorer.special_cases == [{"item": 1, "reason": "left out of bias-bench: a sentence has no changed token"}]
    assert scorer.bias_bench(model, TokenBudget(512)).items()["item"].tolist() == [0]
    assert scorer.original(model, TokenBudget(512)).items()["item"].tolist() == [0, 1]
    words = ("kind", "rude", "blue")
    examples = [
        Example("girl", "BLANK and BLANK was the girl.", words, words),
        Example("girl", "The girl was unBLANK.", words, words),
        Example("girl", "The girl was BLANK.", ("kind", "", "blue"), ("kind", "", "blue")),
        Example("girl", "The girl was BLANK.", words, words),
    ]
    metric = StereoSetScorer(examples, tokenizer)
    assert [(row["item"], row["reason"].split(":")[0].split(" is ")[0]) for row in metric.special_cases] == [
        (0, "several BLANKs"),
        (1, "the BLANK"),
        (2, "left out"),
    ]
    items = metric.score(model, TokenBudget(512)).items()
    assert items["item"].tolist() == [0, 1, 3]
    for i, row in zip((0, 1), (0, 1), strict=True):
        logs = literal.stereoset(model, tokenizer, examples[i].context, "kind")
        assert items["stereotype"][row] == pytest.approx(sum(map(math.exp, logs)) / len(logs), rel=1e-4)


def test_bad_benchmark_input_is_refused(bundled: Bundled, benchmarks: Path, downloads: Path) -> None:
    with pytest.raises(LceError, match=r"unknown type 'size'; known are all, age, .*race-color, religion"):
        BiasSuite(EvaluationSettings(bias_type="size"), bundled[1], downloads)
    with pytest.raises(LceError, match=r"nothing is left to measure .*no bias type profession"):
        BiasSuite(EvaluationSettings(metrics=["crows_pairs"], bias_type="profession"), bundled[1], downloads)
    with pytest.raises(LceError, match="weat8 names two scores"):
        BiasSuite(EvaluationSettings(weat=["weat8", "weat8"]), bundled[1], downloads)
    with pytest.raises(LceError, match="limit: expected a positive number of items, got 0"):
        BiasSuite(EvaluationSettings(limit=0), bundled[1], downloads)
    other = EvaluationSettings(stereoset_word_score="log-probability")
    with pytest.raises(LceError, match="stereoset_word_score: does not apply to causal models"):
        BiasSuite(other, bundled[1], downloads, kind="causal")
    with pytest.raises(LceError, match="pair 0: has 603 tokens, but the model takes at most 512"):
        CrowsPairsScorer([Pair("he " * 601, "she " * 3, "stereo")], bundled[1])


def test_the_token_budget_halves_until_the_batches_fit(
    bundled: Bundled, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer = bundled
    ids = tokenizer.encode("The [MASK] was here.")
    queries = [Query(tuple(ids), 2, token) for token in range(1000, 1010)]
    queries += [Query((*ids[:-1], *range(2000, 2000 + n), ids[-1]), 2, 1000) for n in range(20)]
    expected = log_probabilities(model, queries, 0, TokenBudget(512), "")
    whole = type(model).forward

    def forward(self: PreTrainedModel, input_ids: torch.Tensor, **rest: torch.Tensor) -> object:
        if input_ids.numel() > fits:
            raise torch.OutOfMemoryError("the card is full")
        return whole(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(model), "forward", forward)
    fits, budget = 100, TokenBudget(1000)
    torch.testing.assert_close(log_probabilities(model, queries, 0, budget, ""), expected, atol=1e-5, rtol=0)
    assert budget.tokens is not None
    assert budget.tokens <= 125
    assert "out of memory; continuing with" in caplog.text
    fits = 10
    with pytest.raises(LceError, match="out of memory on one sentence of 26 tokens"):
        log_probabilities(model, queries, 0, budget, "")
