"""CrowS-Pairs and StereoSet against literal scorers: one sentence, one mask, the whole vocabulary at a time."""

from __future__ import annotations

import csv
import difflib
import json
import string
from pathlib import Path

import pytest
import torch
from conftest import BASE
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lce.errors import LceError
from lce.metrics.crows_pairs import CrowsPairs, CrowsPairsScorer, read_pairs
from lce.metrics.scoring import log_probabilities
from lce.metrics.stereoset import StereoSet, StereoSetScorer, read_examples
from lce.models import load_masked_lm

EXAMPLES = 30
Bundled = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def bundled() -> Bundled:
    model, tokenizer = load_masked_lm(BASE)
    return model.eval(), tokenizer


@torch.no_grad()
def log_softmax_at(model: PreTrainedModel, ids: list[int], position: int) -> Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0, position].log_softmax(-1)


def literal_crows_pairs(bundled: Bundled, more: str, less: str) -> list[float]:
    """Mean log-probability of the changed tokens of both, then summed log-probability of the shared ones of both."""
    model, tokenizer = bundled
    ids = [tokenizer.encode(more), tokenizer.encode(less)]
    opcodes = difflib.SequenceMatcher(None, [str(i) for i in ids[0]], [str(i) for i in ids[1]]).get_opcodes()
    scores = []
    for changed in (True, False):
        for side in (0, 1):
            logs = []
            for operation, *ends in opcodes:
                if (operation != "equal") != changed:
                    continue
                for position in range(ends[2 * side], ends[2 * side + 1]):
                    if position in (0, len(ids[side]) - 1):
                        continue
                    masked = list(ids[side])
                    masked[position] = tokenizer.mask_token_id
                    logs.append(log_softmax_at(model, masked, position)[ids[side][position]].item())
            scores.append(sum(logs) / len(logs) if changed else sum(logs))
    return scores


def test_crows_pairs_against_the_literal_scorer(bundled: Bundled, benchmarks: Path) -> None:
    path = benchmarks / "CrowS-Pairs/data/crows_pairs_anonymized.csv"
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["bias_type"] == "gender"][:EXAMPLES]
    scorer = CrowsPairsScorer(read_pairs(path, "gender")[:EXAMPLES], bundled[1])
    literal = [literal_crows_pairs(bundled, row["sent_more"], row["sent_less"]) for row in rows]
    kinds = ((scorer.changed, torch.mean, scorer.bias_bench, 0), (scorer.shared, torch.sum, scorer.original, 2))
    for pairs, aggregate, measure, place in kinds:
        for sides, expected in zip(pairs, literal, strict=True):
            got = [
                aggregate(log_probabilities(bundled[0], queries, scorer.pad_id, 2048, "")).item() for queries in sides
            ]
            assert got == pytest.approx(expected[place : place + 2], abs=1e-4)
        preferred = sum(round(scores[place], 3) > round(scores[place + 1], 3) for scores in literal)
        assert measure(bundled[0], 512).compute().item() == pytest.approx(100 * preferred / len(rows))
    assert scorer.directions == [row["stereo_antistereo"] for row in rows]


def literal_stereoset(bundled: Bundled, item: dict) -> dict[str, float]:
    """Mean probability of the sub-tokens of each candidate word."""
    model, tokenizer = bundled
    scores = {}
    place = [i for i, word in enumerate(item["context"].split(" ")) if "BLANK" in word][-1]
    for sentence in item["sentences"]:
        word = sentence["sentence"].split(" ")[place]
        word = "".join(c for c in word if c not in string.punctuation)
        pieces = tokenizer.encode(word, add_special_tokens=False)
        probabilities = []
        for i, piece in enumerate(pieces):
            text = item["context"].replace("BLANK", tokenizer.decode(pieces[:i]) + "[MASK]")
            ids = tokenizer.encode(text)
            position = ids.index(tokenizer.mask_token_id)
            probabilities.append(log_softmax_at(model, ids, position)[piece].exp().item())
        scores[sentence["gold_label"]] = sum(probabilities) / len(probabilities)
    return scores


def test_stereoset_against_the_literal_scorer(bundled: Bundled, benchmarks: Path) -> None:
    path = benchmarks / "StereoSet/data/dev.json"
    raw = json.loads(path.read_text(encoding="utf-8"))["data"]["intrasentence"]
    items = [item for item in raw if item["bias_type"] == "gender"][:EXAMPLES]
    scorer = StereoSetScorer(read_examples(path, "gender")[:EXAMPLES], bundled[1])
    probabilities = log_probabilities(bundled[0], scorer.queries, scorer.pad_id, 2048, "").exp()
    expected = StereoSet([item["target"] for item in items])
    for item, slices in zip(items, scorer.groups, strict=True):
        literal = literal_stereoset(bundled, item)
        words = [literal[label] for label in ("stereotype", "anti-stereotype", "unrelated")]
        got = [probabilities[part].mean().item() for part in slices]
        assert got == pytest.approx(words, rel=1e-4)
        expected.update(item["target"], *words)
    assert scorer.score(bundled[0], 512).scores() == expected.scores()


def test_stereoset_arithmetic() -> None:
    metric = StereoSet(["a", "a", "b"])
    metric.update("a", 0.5, 0.2, 0.1)
    metric.update("a", 0.2, 0.2, 0.3)
    metric.update("b", 0.3, 0.1, 0.2)
    scores = metric.scores()
    assert scores["ss"].item() == pytest.approx((50 + 100) / 2), "a tie counts as anti-stereotypical"
    assert scores["lm"].item() == pytest.approx((50 + 50) / 2)
    assert scores["icat"].item() == pytest.approx(50 * 25 / 50)


def test_crows_pairs_arithmetic() -> None:
    metric = CrowsPairs()
    for more, less, direction in ((-1.0, -2.0, "stereo"), (-1.0, -1.0004, "stereo"), (-1.0, -2.0, "antistereo")):
        metric.update(more, less, direction)
    assert metric.compute().item() == pytest.approx(200 / 3), "equal to three decimals is not preferred"
    assert metric.details() == {"n": 3, "stereo": 50.0, "antistereo": 100.0}


def test_whole_gender_sets(benchmarks: Path) -> None:
    assert len(read_pairs(benchmarks / "CrowS-Pairs/data/crows_pairs_anonymized.csv", "gender")) == 262
    assert len(read_examples(benchmarks / "StereoSet/data/dev.json", "gender")) == 255
    with pytest.raises(LceError, match="no bias type 'size'; known are"):
        read_pairs(benchmarks / "CrowS-Pairs/data/crows_pairs_anonymized.csv", "size")
    with pytest.raises(LceError, match="no bias type 'size'; known are"):
        read_examples(benchmarks / "StereoSet/data/dev.json", "size")
