"""GRADIEND (Drechsel and Herbold 2025; the package gradiend) on SmolLM2, by its own example for decoders.

The example is gradiend/examples/train_gender_en.py --decoder-only: an autoencoder with one neuron over the gradients of
all weights, 100 steps of 8 sentences, and a grid of strengths. It takes its sentences from the hub; here they are those
of the corpus with one "he" or "she" after `CONTEXT` words or more. Its balanced prediction index is computed with names
there, and here with "he" and "she" after the occupations that debiasing.py lets a method look at. It pads sentences to
256 tokens; here they are cut to the longest of their batch: the gradients are the same to 2e-6, in 0.4 of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

import numpy as np
import pandas as pd
from common import timed
from debiasing_methods import BASE, CHOOSING, EXAMPLES, RUNS, Made
from torch import Tensor

from lce.data.module import read_examples
from lce.foundations.files import read_json, write_json
from lce.models.loading import load_language_model

if TYPE_CHECKING:
    from debiasing import Measure

CONTEXT, NEUTRAL = 5, 200
FACTORS = [-1.0, 0.0, 1.0]
"""What the decoder is given; by default ±1, and 0 is what the paper's balanced models have."""
RATES = [0.5, 1.0, 2.0, 5.0, 10.0]
"""What its output is multiplied by where the strength is chosen as that of all others; the package's grid is wider."""
FOLDER = RUNS / "gradiend"


def gradiend(measure: Measure, by: Literal["index", "gap"]) -> Made:
    """Its strength is chosen by the example's rule, the index times the language modelling score, or as all others'."""
    from gradiend import TextPredictionConfig, TextPredictionTrainer, TrainingArguments
    from gradiend.evaluator.decoder import LMSTimesMetricPolicy
    from gradiend.trainer.text.prediction.model_with_gradiend import TextPredictionModelWithGradiend as WithGradiend

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
    trainer = TextPredictionTrainer(model=str(_under_another_name()), config=config, args=arguments)
    with patch.object(WithGradiend, "forward", _without_padding(WithGradiend.forward)):
        seconds, _ = timed(trainer.train)
    clock = FOLDER / "minutes.json"
    before = read_json(clock) if clock.exists() else 0.0  # what is trained already took its time, too
    if not before:
        write_json(clock, seconds / 60)
    if by == "index":
        trainer.evaluate_base_model = MethodType(_evaluation(measure, list(neutral["text"])), trainer)
        found = trainer.evaluate_decoder(
            feature_factors=FACTORS, selector=LMSTimesMetricPolicy(), summary_metrics=["index"]
        )["index"]
        candidates = [(found["feature_factor"], found["learning_rate"])]
    else:
        candidates = list(product(FACTORS, RATES))
    whole = trainer.get_model()
    made = {
        f"factor {factor:g}, rate {rate:g}": partial(_rewritten, whole, factor, rate) for factor, rate in candidates
    }
    model, applied, about = measure.strongest(made)
    base = dict(load_language_model(BASE)[0].named_parameters())
    about |= {
        "weights": sum(int((value != base[name]).sum()) for name, value in model.named_parameters()),
        "bytes": 4 * sum(value.numel() for value in base.values()),
        "minutes_before": before,
    }
    return Made(model, applied, about)


def _rewritten(whole: Any, factor: float, rate: float) -> Made:
    return Made(whole.rewrite_base_model(rate, factor), nullcontext, {})


def _without_padding(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The package's pass for gradients, with the padding on the right that all sentences of a batch share cut off."""

    def shorter(model: Any, inputs: dict[str, Tensor], *arguments: Any, **options: Any) -> Any:
        longest = int(inputs["attention_mask"].sum(-1).max())
        cut = {name: values[..., :longest] for name, values in inputs.items()}
        return forward(model, cut, *arguments, **options)

    return shorter


def _under_another_name() -> Path:
    """The model's folder by a name without "instruct": with it, the package reads texts in Llama 3's chat template."""
    link = RUNS / "SmolLM2-135M"
    if not link.exists():
        link.symlink_to(BASE, target_is_directory=True)
    return link


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
    """What the package asks of a candidate: the index, and its language modelling score."""
    from gradiend.trainer.text.prediction.decoder_eval_utils import compute_lms

    others = [name for name in (*measure.before, "stereoset", "crows_pairs") if name != CHOOSING]

    def evaluate(trainer: Any, model: Any, tokenizer: Any, **_: Any) -> dict[str, Any]:
        (metric,) = measure.evaluator.metrics(model, others)
        rows = metric.items()
        he, she = (np.exp(rows[side][rows["in_specification"]]) for side in ("he", "she"))
        index = float(((1 - np.abs(he - she)) * (he + she)).mean())
        return {"index": index, "lms": compute_lms(model, tokenizer, texts, batch_size=8)}

    return evaluate
