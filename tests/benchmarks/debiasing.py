"""Taking occupational gender out of SmolLM2: lce's edits against what else people would pick, on the same measures.

    python tests/benchmarks/debiasing.py             # all methods, then the table; what has a result is not run again
    python tests/benchmarks/debiasing.py METHOD…     # some of them
    python tests/benchmarks/debiasing.py table

Each method starts from the unedited model and has the text of configs/smollm2.yaml and lce's lists of words. It may
look at the occupations that the bias specification names and at the first five sentences, and at no others. What has a
strength is run at several, and keeps the one with the smallest gap there of those that raise the perplexity of the
corpus by at most `MOST`. The gap of the table is among the other occupations, in the held-out sentences; beside it
stands the mean of log P(he) − log P(she) over both groups. How much else a method changed is told by the
divergence of the next token's distribution from the unedited model's, on plain text. A result, with the minutes that
the method took on this machine, its choice of a strength included, is kept in runs/debiasing/METHOD.json.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from common import ROOT, machine
from debiasing_methods import BASE, CHOOSING, EXAMPLES, MOST, RUNS, Made, cda, contrast, direction, feature, inlp
from gradiend_peer import gradiend
from torch.nn.functional import log_softmax

from lce.config import Settings
from lce.evaluation.evaluator import Evaluator
from lce.foundations.configuration import read_configuration
from lce.foundations.files import read_json, write_json
from lce.foundations.labels import label
from lce.metrics.items import ItemMetric, differences
from lce.metrics.occupation_pronouns import OccupationPronouns
from lce.metrics.perplexity import Perplexity
from lce.models.loading import load_language_model
from lce.models.logits import logits_at

HELD_OUT, BEYOND = "occupation_pronouns_held_out", "_beyond"
GAP = HELD_OUT + BEYOND
PLAIN = "plain_perplexity"
CHANGES = {
    "crows_pairs": label("crows_pairs"),
    "stereoset_ss": label("stereoset_ss"),
    "stereoset_lm": label("stereoset_lm"),
    "perplexity": "perplexity of the corpus",
    PLAIN: "perplexity of plain text",
}
METHODS: dict[str, Callable[[Measure], Made]] = {
    "contrast-0": partial(contrast, seed=0),
    "contrast-1": partial(contrast, seed=1),
    "feature": feature,
    "direction": direction,
    "inlp": inlp,
    "cda": partial(cda, learning_rate=2e-4),
    "cda-gentle": partial(cda, learning_rate=5e-5),
    "gradiend": partial(gradiend, by="index"),
    "gradiend-by-gap": partial(gradiend, by="gap"),
}


class Measure:
    """Measures models of SmolLM2's vocabulary."""

    def __init__(self) -> None:
        settings = Settings(experiment=str(RUNS), base=str(BASE))
        content = read_configuration(ROOT / "configs/smollm2.yaml")
        settings.data.folder, settings.data.processes = content["data"]["folder"], content["data"]["processes"]
        settings.data.neutral_ratio = content["data"]["neutral_ratio"]
        settings.train.max_length = content["train"]["max_length"]
        settings.evaluation.metrics = ["stereoset", "crows_pairs", "occupation_pronouns", "perplexity", PLAIN]
        model, tokenizer = load_language_model(BASE)
        self.evaluator = Evaluator(settings, {"accelerator": "cpu"}, tokenizer, "causal")
        self.unedited = model.eval()
        self.before = self.all_of(model)

    def all_of(self, model: Any, leave_out: tuple[str, ...] = ()) -> dict[str, ItemMetric]:
        """All metrics by name, and those of pronouns once more among the occupations that nobody may look at."""
        found = {metric.name: metric for metric in self.evaluator.metrics(model, leave_out)}
        for metric in list(found.values()):
            if isinstance(metric, OccupationPronouns):
                rows = metric.items()
                beyond = metric.among(rows["item"][~rows["in_specification"]].tolist())
                beyond.name = metric.name + BEYOND
                found[beyond.name] = beyond
        return found

    @torch.inference_mode()
    def divergence(self, model: Any) -> dict[str, Any]:
        """Mean of KL(unedited ‖ ``model``) at the next tokens of plain text [nats], and its interval over sentences."""
        sentences, batches = self.evaluator.texts[PLAIN]
        divergences = Perplexity("divergence", {"sentence": sentences})  # exp of the mean, as of any loss
        for batch in batches:
            logits = [
                logits_at(one, batch.input_ids, batch.attention_mask, batch.positions) for one in (self.unedited, model)
            ]
            before, after = (log_softmax(of_one.float(), 1) for of_one in logits)
            divergences.add(batch, (before.exp() * (before - after)).sum(1))
        score = divergences.scores()["divergence"].as_json()
        return {"value": math.log(score["value"]), "interval": [math.log(bound) for bound in score["interval"]]}

    def choice(self, model: Any) -> tuple[float, float]:
        """The gap that a strength is chosen by [nats], and by what share the perplexity of the corpus rose."""
        found = self.all_of(model, ("stereoset", "crows_pairs", HELD_OUT, PLAIN))
        gap = found[CHOOSING].scores()[CHOOSING].details["in_specification"]
        values = [metrics["perplexity"].scores()["perplexity"].value for metrics in (self.before, found)]
        return float(gap), values[1] / values[0] - 1

    def strongest(self, candidates: Mapping[str, Callable[[], Made]]) -> Made:
        """Of the same method at several strengths, the one that is kept; it says what all of them gave."""
        tried = {}
        for name, make in candidates.items():
            model, applied, _ = make()
            with applied():
                tried[name] = self.choice(model)
            print(f"  {name}: gap {tried[name][0]:.2f}, perplexity {tried[name][1]:+.1%}", flush=True)
        cheap = [name for name, (_, rise) in tried.items() if rise <= MOST] or [min(tried, key=lambda n: tried[n][1])]
        best = min(cheap, key=lambda name: abs(tried[name][0]))
        model, applied, about = candidates[best]()
        return Made(model, applied, about | {"strength": best, "tried": tried})


def result_of(name: str, measure: Measure) -> dict[str, Any]:
    started = time.perf_counter()
    model, applied, about = METHODS[name](measure)
    minutes = (time.perf_counter() - started) / 60 + about.get("minutes_before", 0.0)
    with applied():
        after, divergence = measure.all_of(model), measure.divergence(model)
    scores: dict[str, Any] = {}
    for key, metric in after.items():
        changes = differences(metric, measure.before[key])
        unedited = measure.before[key].scores()
        for score, found in metric.scores().items():
            scores[score] = {
                "before": unedited[score].as_json(), "after": found.as_json(), "difference": changes[score]
            }  # fmt: skip
    about |= {"divergence": divergence, "machine": machine(torch.device("cpu")), "scores": scores}
    return {"method": name, "minutes": minutes, **about}


def table() -> None:
    """One row a method, from the results that there are; of perplexities, the change in percent."""
    rows: list[list[str]] = []
    for name in METHODS:
        if not (path := RUNS / f"{name}.json").exists():
            continue
        result = read_json(path)
        scores = result["scores"]
        if not rows:
            before = [f"{scores[key]['before']['value']:.2f}" for key in CHANGES]
            rows.append(["unedited", "", *_gap(scores[GAP]["before"]), *before, "", "", "", ""])
        changes = [_change(scores[key], is_relative="perplexity" in key) for key in CHANGES]
        changes.append(_with_interval(result["divergence"], 3))
        sizes = [f"{result['weights']:,}", f"{result['bytes']:,}", f"{result['minutes']:.1f}"]
        rows.append([name, result["strength"], *_gap(scores[GAP]["after"]), *changes, *sizes])
    costs = ["divergence", "weights changed", "bytes shipped", "minutes"]
    headings = ["", "strength", "gap left", "mean", *CHANGES.values(), *costs]
    for row in [headings, ["---"] * len(headings), *rows]:
        print(f"| {' | '.join(row)} |")


def _gap(score: dict[str, Any]) -> list[str]:
    """The gap with its interval, and the mean of log P(he) − log P(she) over both groups."""
    groups = [score[side]["log_ratio"] for side in ("male_dominated", "female_dominated")]
    return [_with_interval(score, 2), f"{sum(groups) / 2:+.2f}"]


def _with_interval(score: dict[str, Any], digits: int) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in (score["value"], *score["interval"]))
    return f"{value} ({low} to {high})"


def _change(score: dict[str, Any], is_relative: bool) -> str:
    change = score["difference"]
    scale, unit = (100 / score["before"]["value"], " %") if is_relative else (1, "")
    value, low, high = (scale * number for number in (change["value"], *change["interval"]))
    return f"{value:+.1f}{unit} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    asked = sys.argv[1:] or [*METHODS, "table"]
    if unknown := [name for name in asked if name not in (*METHODS, "table")]:
        raise SystemExit(f"{', '.join(unknown)}: expected table, or methods among {', '.join(METHODS)}")
    if not BASE.exists() or not EXAMPLES.exists():
        raise SystemExit(f"{BASE} or {EXAMPLES}: is not there; `lce data --config configs/smollm2.yaml` fetches them")
    RUNS.mkdir(parents=True, exist_ok=True)
    measure = None
    for name in asked:
        if name == "table":
            table()
        elif not (path := RUNS / f"{name}.json").exists():
            print(name, flush=True)
            measure = measure or Measure()
            write_json(path, result_of(name, measure))


if __name__ == "__main__":
    main()
