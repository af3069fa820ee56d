"""Fine-tuning against Hugging Face Trainer with DataCollatorForLanguageModeling, in sentences per second.

Same sentences, model, batch size, optimiser, precision and threads; Trainer pads each batch to its longest sentence.
Everything is trained, nothing frozen. The first steps of both are not counted. Then the settings that change how a
step is computed: bf16-mixed precision, compiled layers, gradients accumulated over four parts.
"""

from __future__ import annotations

import tempfile
import time
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import ROOT, in_turns, machine, matrix_rate, models, operations, report, spread
from lightning import Callback
from lightning import Trainer as LightningTrainer
from transformers import (
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from lce.config import OptimisationSettings
from lce.data.encoding import encode
from lce.data.module import read_examples
from lce.training.fit import fit

BATCH = 32
MAX_LENGTH = 64
WARM = 2
STEPS = {"bundled": (10, 40), "bert-base shape": (3, 8)}
"""Counted steps of Trainer and of lce."""
VARIANTS: dict[str, dict[str, Any]] = {
    "bf16-mixed": {"precision": "bf16-mixed"},
    "compiled": {"compiled": True},
    "accumulated": {"accumulate_grad_batches": 4},
}


class TrainerClock(TrainerCallback):
    """Time after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


class Clock(Callback):
    """Time after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: LightningTrainer, *_: Any) -> None:
        if trainer.global_step > len(self.times):
            self.times.append(time.perf_counter())


def sentences_per_second(times: list[float]) -> float:
    counted = times[WARM - 1 :]
    return BATCH * (len(counted) - 1) / (counted[-1] - counted[0])


def by_trainer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], steps: int) -> float:
    encoded = [{"input_ids": ids} for ids in tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]]
    clock = TrainerClock()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps + WARM,
            learning_rate=5e-5,
            max_grad_norm=0.0,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            seed=0,
        )
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        Trainer(model, arguments, data_collator=collator, train_dataset=encoded, callbacks=[clock]).train()
    return sentences_per_second(clock.times)


def by_lce(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    steps: int,
    compiled: bool = False,
    **options: Any,
) -> float:
    encoded = encode(texts, texts, tokenizer, None, MAX_LENGTH)
    few = encode(texts[:BATCH], texts[:BATCH], tokenizer, None, MAX_LENGTH)
    settings = OptimisationSettings(
        steps=steps + WARM,
        batch_size=BATCH,
        learning_rate=5e-5,
        max_length=MAX_LENGTH,
        checkpoint_every=10**6,
        compile=compiled,
    )
    clock = Clock()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options |= {"accelerator": "auto", "devices": 1}
        fit(model, tokenizer, (encoded, few), settings, 0, options, Path(folder), "lce", [clock])
    return sentences_per_second(clock.times)


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    texts, _ = read_examples(ROOT / "data/quickstart/examples.parquet", "stereotypical", evaluation=False)
    print(machine(device))
    loaded = models()
    rows, rates = [], {}
    for name, (model, tokenizer) in loaded.items():
        peer_steps, own_steps = STEPS[name]

        def own_time(model: Any = model, tokenizer: Any = tokenizer, steps: int = own_steps) -> float:
            return BATCH / by_lce(deepcopy(model), tokenizer, texts, steps)

        def peer_time(model: Any = model, tokenizer: Any = tokenizer, steps: int = peer_steps) -> float:
            return BATCH / by_trainer(deepcopy(model), tokenizer, texts, steps)

        turns = in_turns(own_time, peer_time)
        peer, rates[name] = (BATCH / median(times) for times in (turns.peer, turns.own))
        lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]]
        tokens = sum(lengths) / len(lengths)
        share = 3 * operations(model, tokens, 0.15 * tokens) * rates[name] / matrix_rate(device)
        rows.append([name, f"{peer:.1f}", f"{rates[name]:.1f}", spread(turns.ratios), f"{share:.0%}"])
        print(" | ".join(rows[-1]), flush=True)
    headings = ["", "Trainer", "lce", "times as fast (range)", "lce: share of the matrix rate"]
    report(f"fine-tuning, float32, sentences per second, batches of {BATCH}", headings, rows)
    others = []
    for name, (model, tokenizer) in loaded.items():
        for variant, options in VARIANTS.items():
            rate = by_lce(deepcopy(model), tokenizer, texts, STEPS[name][1], **options)
            others.append([f"{name}: {variant}", f"{rate:.1f}", f"{rate / rates[name]:.2f}"])
            print(" | ".join(others[-1]), flush=True)
    report("other ways to compute a step, after its compilation", ["", "sentences per second", "to plain lce"], others)


if __name__ == "__main__":
    main()
