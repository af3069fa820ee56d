"""Training of decoders: the loss of every step as Hugging Face Trainer has it, and two processes as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from causal_models import NAMED, saved, tiny, tokenizer
from conftest import own_sentences, write_config
from trainings import Losses, assert_like_one, dense_weights, labelled, trainer_losses

from lce.cli import main
from lce.config import OptimisationSettings
from lce.data.batches import TrainingBatches
from lce.data.encoding import encode
from lce.data.module import evaluation_collator, training_collator
from lce.data.next_token import NextTokenCollator
from lce.data.specification import BiasSpecification
from lce.training.fit import fit
from lce.training.module import CausalLanguageModel

STEPS = 12


@pytest.mark.parametrize("kind", NAMED)
def test_losses_are_those_of_trainer(kind: str, tmp_path: Path) -> None:
    texts = own_sentences()[:200]
    encoded = encode(texts, texts, tokenizer(), None, max_length=32)
    settings = OptimisationSettings(
        steps=STEPS, batch_size=8, learning_rate=5e-3, max_length=32, weight_decay=0.01, term_weight=1.0
    )
    losses = Losses()
    options = {"accelerator": "cpu", "devices": 1}
    fit(_still(kind), tokenizer(), (encoded, encoded), settings, 7, options, tmp_path / "lce", "", [losses])
    collator = NextTokenCollator(encoded, 1)
    batches = [labelled(collator(*batch), shift=1) for batch in TrainingBatches(encoded.sizes, 8, seed=7, steps=STEPS)]
    expected = trainer_losses(_still(kind), batches, tmp_path / "trainer")
    assert losses.seen == pytest.approx(expected, abs=1e-4)
    assert losses.seen[-1] < losses.seen[0]


def test_terms_weigh_more_in_the_loss_and_all_tokens_1_on_average(spec: BiasSpecification) -> None:
    texts = own_sentences()[:64]
    encoded = encode(texts, texts, tokenizer(), spec, max_length=32)
    collator = training_collator("causal", encoded, tokenizer(), 0, 0.3, 0.15, 2.0)
    batch = collator(0, range(len(texts)))
    is_term = torch.cat([encoded[i][1][1:] for i in range(len(texts))])
    assert 0 < is_term.sum() < len(is_term)
    assert torch.equal(batch.weights == 2, is_term)
    assert batch.weights.mean().item() == pytest.approx(1)
    losses = torch.rand(len(batch.labels), generator=torch.Generator().manual_seed(0))
    found = CausalLanguageModel(tiny("llama")).loss(losses, batch)
    torch.testing.assert_close(found, (losses * batch.weights).sum() / len(losses))
    held_out = evaluation_collator("causal", encoded, tokenizer(), 0.15)(0, range(len(texts)))
    assert (held_out.weights == 1).all()


def _still(kind: str) -> torch.nn.Module:
    """Without dropout, which draws its own random numbers in every framework."""
    model = tiny(kind)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


@pytest.mark.parametrize(
    ("program", "strategy"),
    [
        pytest.param(["-m", "lce.cli"], "ddp", id="ddp"),
        pytest.param([str(Path(__file__).with_name("sharded.py"))], "fsdp_processor", id="fsdp"),
    ],
)
def test_two_processes_train_a_llama_like_one(
    program: list[str], strategy: str, tmp_path: Path, sentences_file: Path, benchmarks: Path
) -> None:
    config = write_config(tmp_path, saved("llama", tmp_path / "base"), sentences_file, benchmarks.parent)
    options = ["--config", str(config), "--sparsity", "0", "--sparsities", "[]", "--train.steps", "4"]
    options += ["--train.checkpoint_every", "1000", "--train.learning_rate", "1e-3"]
    assert main(["train", *options]) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    shared = ["--trainer.devices", "2", "--trainer.strategy", strategy, "--experiment", str(tmp_path / "two")]
    subprocess.run(
        [*launcher, *program, "train", *options, *shared],
        check=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert_like_one(dense_weights(tmp_path / "run"), dense_weights(tmp_path / "two"))
