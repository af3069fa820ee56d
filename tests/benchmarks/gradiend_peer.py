"""GRADIEND (Drechsel and Herbold 2025; the package gradiend) on SmolLM2, by its own example for decoders.

The example is gradiend/examples/train_gender_en.py --decoder-only: an autoencoder with one neuron over the gradients of
all weights, 100 steps of 8 sentences, and a grid of strengths. It takes its sentences from the hub; here they are those
of the corpus with one "he" or "she" after `CONTEXT` words or more. Its balanced prediction index is computed with names
there, and here with "he" and "she" after the occupations that debiasing.py lets a method look at.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from debiasing_methods import BASE, CHOOSING, EXAMPLES, MOST, RUNS, Made

from lce.data.module import read_examples
from lce.foundations.files import read_json, write_json
from lce.models.loading import load_language_model

if TYPE_CHECKING:
    from debiasing import Measure

CONTEXT, NEUTRAL = 5, 200
FACTORS = [-1.0, 0.0, 1.0]
"""What the decoder is given; by default ±1, and 0 is what the paper's balanced models have."""
FOLDER = RUNS / "gradiend"


def gradiend(measure: Measure, by: Literal["index", "gap"]) -> Made:
    """Its strength is chosen by the example's rule, the index times the language modelling score, or as all others'."""
    from gradiend import TextPredictionConfig, TextPredictionTrainer, TrainingArguments

    started = time.perf_counter()
    neutral = pd.DataFrame({"text": read_examples(EXAMPLES, "neutral", False)[0][:NEUTRAL]})
    config = TextPredictionConfig(
        run_id="gender", data=_sentences(), target_classes=["M", "F"], masked_col="masked", split_col="split",
        eval_neutral_data=neutral,
    )  # fmt: skip
    arguments = TrainingArguments(
        experiment_dir=str(FOLDER), train_batch_size=8, encoder_eval_max_size=10, eval_steps=25, num_train_epochs=1,
        max_steps=100, source="factual", target="diff", eval_batch_size=8, learning_rate=1e-4, use_cache=True,
        fail_on_non_convergence=True, prediction_objective="clm_next_token",
    )  # fmt: skip
    trainer = TextPredictionTrainer(model=str(BASE), config=config, args=arguments)
    trainer.evaluate_base_model = MethodType(_evaluation(measure, list(neutral["text"])), trainer)
    trainer.train()
    chosen = trainer.evaluate_decoder(feature_factors=FACTORS, selector=BothRules(), summary_metrics=["index", "gap"])
    out = RUNS / f"gradiend-{by}"
    trainer.rewrite_base_model(decoder_results=chosen, target_class=by, output_dir=str(out))
    minutes = (time.perf_counter() - started) / 60
    if not (clock := FOLDER / "minutes.json").exists():  # the second rule finds the autoencoder and the grid made
        write_json(clock, minutes)
    model, base = load_language_model(out)[0], dict(load_language_model(BASE)[0].named_parameters())
    weights = sum(int((value != base[name]).sum()) for name, value in model.named_parameters())
    best = chosen[by]
    about = {
        "weights": weights, "bytes": 4 * sum(value.numel() for value in base.values()), "minutes": read_json(clock),
        "strength": f"factor {best['feature_factor']:g}, rate {best['learning_rate']:g}",
        "training": trainer.get_training_stats(),
    }  # fmt: skip
    return Made(model, nullcontext, about)


def _sentences() -> dict[str, pd.DataFrame]:
    """By class, sentences with a mask for their pronoun, as many of each."""
    rows: dict[str, list[dict[str, str]]] = {"M": [], "F": []}
    for text in dict.fromkeys(read_examples(EXAMPLES, None, False)[0]):
        words = text.split()
        pronouns = [word for word in words if word in ("he", "she")]
        if len(pronouns) == 1 and words.index(pronouns[0]) >= CONTEXT:
            side = "M" if pronouns[0] == "he" else "F"
            masked = " ".join("[MASK]" if word == pronouns[0] else word for word in words)
            split = ("train", "train", "train", "validation", "test")[len(rows[side]) % 5]
            rows[side].append({"masked": masked, side: pronouns[0], "split": split})
    size = min(map(len, rows.values()))
    return {side: pd.DataFrame(part[:size]) for side, part in rows.items()}


def _evaluation(measure: Measure, texts: list[str]) -> Any:
    """What the package asks of a candidate: the index, the gap, and by what share the perplexity rises."""
    from gradiend.trainer.text.prediction.decoder_eval_utils import compute_lms

    others = [name for name in (*measure.before, "stereoset", "crows_pairs") if name != CHOOSING]
    unedited = compute_lms(*load_language_model(BASE), texts, batch_size=8)["perplexity"]

    def evaluate(trainer: Any, model: Any, tokenizer: Any, **_: Any) -> dict[str, Any]:
        (metric,) = measure.evaluator.metrics(model, others)
        rows = metric.items()
        he, she = (np.exp(rows[side][rows["in_specification"]]) for side in ("he", "she"))
        found = compute_lms(model, tokenizer, texts, batch_size=8)
        return {
            "index": float(((1 - np.abs(he - she)) * (he + she)).mean()),
            "gap": metric.scores()[CHOOSING].details["in_specification"],
            "rise": found["perplexity"] / unedited - 1,
            "lms": found,
        }

    return evaluate


class BothRules:
    """The example's rule for the index, and that of debiasing.py for the gap, as the package takes them."""

    def select(self, metric: str, candidates: Any, context: Any) -> Any:
        if metric == "index":
            return max(candidates, key=lambda one: one.metrics["index"] * one.lms)
        cheap = [one for one in candidates if one.metrics["rise"] <= MOST]
        return min(cheap, key=lambda one: abs(one.metrics["gap"]), default=None)
