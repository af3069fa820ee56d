"""On a GPU: fine-tuning in bf16 against Hugging Face Trainer, and the benchmarks' items per second.

Both tools get the same sentences, optimiser, precision and batch size, and make their own batches. Shares are of the
rate of a large bf16 product, measured in the same run; what padding costs counts as loss.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from common import BUNDLED, ROOT, machine, matrix_rate, operations, report, timed
from training import Clock, TrainerClock
from transformers import BertConfig, BertForMaskedLM, DataCollatorForLanguageModeling, Trainer, TrainingArguments

from lce.config import OptimisationSettings
from lce.data import wheels
from lce.data.encoding import encode
from lce.data.module import read_examples as read_sentences
from lce.metrics.crows_pairs import CausalCrowsPairsScorer, CrowsPairsScorer, read_pairs
from lce.metrics.scoring import TokenBudget
from lce.metrics.stereoset import CausalStereoSetScorer, StereoSetScorer, read_examples
from lce.metrics.suite import PAIRS
from lce.models.converted import SMOLLM2, provide
from lce.models.loading import load_language_model
from lce.training.fit import fit

DOWNLOADS = ROOT / "data/downloads"
MAX_LENGTH, WARM, STEPS, BATCHES = 128, 10, 60, (64, 512)
CUDA = torch.device("cuda")


def loaded(name: str) -> tuple[Any, Any]:
    """SmolLM2, or a model of bert-base's shape with random weights; with the tokenizer."""
    if name == "SmolLM2":
        model, tokenizer = load_language_model(DOWNLOADS / SMOLLM2)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return model, tokenizer
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig()), load_language_model(BUNDLED)[1]


def steps_per_second(times: list[float]) -> float:
    return (len(times) - WARM) / (times[-1] - times[WARM - 1])


def by_trainer(name: str, texts: list[str], batch: int) -> float:
    model, tokenizer = loaded(name)
    ids = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    clock = TrainerClock()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, max_steps=WARM + STEPS, learning_rate=2e-5,
            max_grad_norm=0.0, report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
            bf16=True, seed=0,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=name != "SmolLM2")
        data = [{"input_ids": one} for one in ids]
        Trainer(model, arguments, data_collator=collator, train_dataset=data, callbacks=[clock]).train()
    return steps_per_second(clock.times)


def by_lce(name: str, texts: list[str], batch: int) -> float:
    model, tokenizer = loaded(name)
    encoded, few = (encode(some, some, tokenizer, None, MAX_LENGTH) for some in (texts, texts[:batch]))
    settings = OptimisationSettings(
        steps=WARM + STEPS, batch_size=batch, learning_rate=2e-5, max_length=MAX_LENGTH, checkpoint_every=10**6,
        term_weight=1.0, workers=2,
    )  # fmt: skip
    clock = Clock()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"}
        fit(model, tokenizer, (encoded, few), settings, 0, options, Path(folder), "lce", [clock])
    return steps_per_second(clock.times)


def training(rate: float) -> list[list[str]]:
    texts, _ = read_sentences(ROOT / "data/smollm2/examples.parquet", "stereotypical", evaluation=False)
    rows = []
    for name in ("SmolLM2", "bert-base shape"):
        model, tokenizer = loaded(name)
        lengths = [len(ids) for ids in tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]]
        tokens = sum(lengths) / len(lengths)
        step = 3 * operations(model, tokens, tokens if name == "SmolLM2" else 0.15 * tokens)
        for batch in BATCHES:
            peer, own = by_trainer(name, texts, batch) * batch, by_lce(name, texts, batch) * batch
            found = [f"{peer * tokens:,.0f}", f"{own * tokens:,.0f}", f"{own / peer:.2f}", f"{own * step / rate:.1%}"]
            rows.append([f"{name}, batches of {batch}", *found])
            print(" | ".join(rows[-1]), flush=True)
    return rows


def scoring() -> list[list[str]]:
    root, rows = wheels.fetch(wheels.BENCHMARKS, DOWNLOADS), []
    pairs, examples = read_pairs(root / PAIRS, "gender"), read_examples(root / "StereoSet/data/dev.json", "gender")
    for name in ("SmolLM2", "bert-base shape"):
        model, tokenizer = loaded(name)
        model.to(CUDA)
        scores: dict[str, tuple[int, Any]]
        if name == "SmolLM2":
            scores = {
                "CrowS-Pairs": (len(pairs), CausalCrowsPairsScorer(pairs, tokenizer).score),
                "StereoSet": (len(examples), CausalStereoSetScorer(examples, tokenizer).score),
            }
        else:
            scores = {
                "CrowS-Pairs": (len(pairs), CrowsPairsScorer(pairs, tokenizer).bias_bench),
                "StereoSet": (len(examples), StereoSetScorer(examples, tokenizer).score),
            }
        for title, (items, score) in scores.items():
            rates = []
            for precision in (torch.float32, torch.bfloat16):
                with torch.autocast("cuda", torch.bfloat16, enabled=precision == torch.bfloat16):
                    took = [timed(lambda s=score, m=model: s(m, TokenBudget()).items())[0] for _ in range(4)]
                rates.append(f"{items / min(took[1:]):,.0f}")
            rows.append([f"{name}, {title}", *rates])
            print(" | ".join(rows[-1]), flush=True)
    return rows


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("accelerator.py: needs a GPU that torch can use")
    provide(DOWNLOADS / SMOLLM2, DOWNLOADS)
    rate = matrix_rate(CUDA, torch.bfloat16)
    print(f"{machine(CUDA)}, in bf16 {rate / 1e12:,.0f} TFLOP/s")
    report("items scored per second", ["", "float32", "bf16"], scoring())
    headings = ["", "Trainer", "lce", "ratio", "lce: share of the bf16 rate"]
    report("fine-tuning in bf16, tokens per second", headings, training(rate))


if __name__ == "__main__":
    main()
