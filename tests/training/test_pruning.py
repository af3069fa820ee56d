from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainings import assert_like_one, dense_weights

from lce.cli import main
from lce.models.layers import prunable_parameters
from lce.models.loading import load_language_model
from lce.storage.in_memory import load_subnetwork
from lce.storage.masks import Mask, magnitude_prune

LEVELS = ("sparsity-00", "sparsity-20", "sparsity-40")


def variant_folder(config: Path, variant: str = "stereotypical") -> Path:
    return config.parent / "run/seed-0" / variant


def weights(folder: Path) -> dict[str, bytes]:
    """All model, mask and pruned-value files of all levels."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("sparsity-*/**/*.safetensors"))
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, base: Path, sentences_file: Path, downloads: Path) -> Path:
    """The configuration of a training that is finished."""
    config = write_config(tmp_path_factory.mktemp("done"), base, sentences_file, downloads)
    assert main(["train", "--config", str(config)]) == 0
    return config


@pytest.fixture(scope="module")
def trained(done: Path) -> Path:
    return variant_folder(done)


def test_levels_are_pruned_from_the_level_before(trained: Path, base: Path) -> None:
    names = list(prunable_parameters(load_language_model(base)[0]))
    levels = [load_subnetwork(trained / level, names) for level in LEVELS]
    assert [level.mask.sparsity for level in levels] == pytest.approx([0, 0.2, 0.4], abs=1e-3)
    for before, level in itertools.pairwise(levels):
        expected = magnitude_prune(before.weights, before.mask, round(level.mask.sparsity, 1))
        assert all(torch.equal(expected.kept[name], level.mask.kept[name]) for name in names)
        for name in names:
            gone = before.mask.kept[name] & ~level.mask.kept[name]
            old = level.values_before_pruning(level.whole(name)).view_as(gone)
            assert torch.equal(old[gone], before.weights[name][gone])
            kept = level.mask.kept[name]
            assert torch.equal(
                level.values_before_pruning(level.whole(name)).view_as(kept)[kept], level.weights[name][kept]
            )
            assert not level.weights[name][~kept].any()


def test_every_level_starts_from_the_pretrained_weights(config: Path, base: Path) -> None:
    assert main(["train", "--config", str(config), "--train.learning_rate", "0.0", "--train.weight_decay", "0"]) == 0
    original, _ = load_language_model(base)
    for level in LEVELS:
        folder = variant_folder(config) / level
        mask = Mask.load(folder / "subnetwork/mask.safetensors")
        rewound = dict(load_language_model(folder)[0].named_parameters())
        for name, parameter in original.named_parameters():
            expected = parameter * mask.kept[name] if name in mask.kept else parameter
            assert torch.equal(rewound[name], expected)


def test_records_say_what_was_made(trained: Path) -> None:
    levels = json.loads((trained / "summary.json").read_text(encoding="utf-8"))["levels"]
    assert [level["sparsity"] for level in levels] == [0.0, 0.2, 0.4]
    for level in levels:
        assert level["pruned"] == round(level["sparsity"] * level["prunable"])
        assert level["winning_ticket"] == (level["perplexity"] <= 1.05 * levels[0]["perplexity"])
    assert (trained / "config.yaml").exists()
    events = EventAccumulator(str(trained / "rounds/sparsity-20/logs"))
    events.Reload()
    logged = {"train/loss", "train/sparsity", "validation/perplexity", "lr-AdamW/pg1"}
    assert logged <= set(events.Tags()["scalars"])
    assert events.Scalars("train/sparsity")[-1].value == pytest.approx(0.2, abs=1e-3)
    assert not list((trained / "rounds").glob("*/checkpoints"))


def test_the_length_of_training_texts_is_not_kept_in_the_tokenizer(trained: Path) -> None:
    for level in LEVELS:
        saved = json.loads((trained / level / "tokenizer.json").read_text(encoding="utf-8"))
        assert saved["truncation"] is None


def test_the_same_command_again_changes_nothing_and_another_seed_does(trained: Path, done: Path) -> None:
    before = weights(trained)
    times = {path: path.stat().st_mtime_ns for path in trained.glob("sparsity-*/model.safetensors")}
    assert main(["train", "--config", str(done)]) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert main(["train", "--config", str(done), "--experiment", str(done.parent / "again")]) == 0
    assert weights(done.parent / "again/seed-0/stereotypical") == before
    assert main(["train", "--config", str(done), "--seed", "1"]) == 0
    assert weights(done.parent / "run/seed-1/stereotypical") != before


def test_results_of_other_settings_are_not_mixed(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(done), "--train.steps", "13"]) == 2
    assert "holds results of other settings" in capsys.readouterr().err
    assert main(["train", "--config", str(done), "--trainer.gradient_clip_val", "1"]) == 2
    assert "gradient_clip_val" in capsys.readouterr().err
    assert main(["train", "--config", str(done), "--sparsities", "[0.4]"]) == 2
    assert "was reached by the sparsities [0.0, 0.2, 0.4]" in capsys.readouterr().err


def test_a_sparsity_beside_the_configured_ones(config: Path) -> None:
    assert main(["train", "--config", str(config), "--sparsity", "0.3"]) == 0
    assert sorted(path.name for path in variant_folder(config).glob("sparsity-*")) == [*LEVELS[:2], "sparsity-30"]


LONGER = ["--train.steps", "60", "--train.checkpoint_every", "5"]


@pytest.fixture(scope="module")
def whole(done: Path) -> Path:
    """The variant of a longer training that nobody killed."""
    experiment = done.parent / "whole"
    assert main(["train", "--config", str(done), "--experiment", str(experiment), *LONGER]) == 0
    return experiment / "seed-0/stereotypical"


@pytest.mark.parametrize("moment", ["within a round", "between rounds"])
def test_killed_and_run_again_ends_bit_identical(config: Path, whole: Path, moment: str) -> None:
    command = [sys.executable, "-m", "lce.cli", "train", "--config", str(config), *LONGER]
    folder = variant_folder(config)
    checkpoint = folder / "rounds" / LEVELS[1] / "checkpoints/last.ckpt"
    awaited = checkpoint if moment == "within a round" else folder / LEVELS[0] / "config.json"
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not awaited.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / LEVELS[2]).exists()
    assert main(command[3:]) == 0
    assert weights(folder) == weights(whole)


DENSE = ["--sparsity", "0", "--sparsities", "[]"]


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory, base: Path, sentences_file: Path, downloads: Path) -> list[str]:
    """Options of a training without dropout, whose pattern is each process's and each part's own."""
    config = write_config(tmp_path_factory.mktemp("still"), base, sentences_file, downloads)
    folder = shutil.copytree(base, config.parent / "still")
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    about |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    return ["--config", str(config), "--base", str(folder), "--train.learning_rate", "0.001"]


@pytest.fixture(scope="module")
def dense(still: list[str]) -> Path:
    """The experiment of that training, with its dense model alone."""
    experiment = Path(still[1]).parent / "run"
    assert main(["train", *still, *DENSE]) == 0
    return experiment


UNDIVIDED = ["--sparsities", "[0.4]", "--train.checkpoint_every", "1000", "--train.weight_decay", "0.1"]
"""Without a GPU, torch crashes where it gathers the optimiser's shares for a checkpoint within a round."""


@pytest.fixture(scope="module")
def by_one(still: list[str]) -> Path:
    """The experiment of such a training by one process."""
    experiment = Path(still[1]).parent / "one"
    assert main(["train", *still, *UNDIVIDED, "--experiment", str(experiment)]) == 0
    return experiment


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


@pytest.mark.parametrize(
    "divided",
    [
        pytest.param(["--trainer.accumulate_grad_batches", "3"], id="in parts"),
        pytest.param(["--train.compile", "true"], id="compiled", marks=needs_compiler),
    ],
)
def test_a_step_means_the_same_however_it_is_computed(
    still: list[str], dense: Path, divided: list[str], tmp_path: Path
) -> None:
    assert main(["train", *still, *DENSE, "--experiment", str(tmp_path), *divided]) == 0
    assert_like_one(dense_weights(dense), dense_weights(tmp_path))


def test_more_shares_than_sentences_are_refused(still: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *still, "--train.batch_size", "2", "--trainer.accumulate_grad_batches", "3"]) == 2
    assert "train.batch_size: 2 sentences cannot be divided into 3 shares" in capsys.readouterr().err


def test_bf16_mixed_precision_trains(still: list[str], dense: Path, tmp_path: Path) -> None:
    options = ["--trainer.precision", "bf16-mixed", "--trainer.gradient_clip_val", "100"]
    assert main(["train", *still, *DENSE, "--experiment", str(tmp_path), *options]) == 0
    perplexities = [
        json.loads((run / "seed-0/stereotypical/summary.json").read_text(encoding="utf-8"))["levels"][0]["perplexity"]
        for run in (dense, tmp_path)
    ]
    assert perplexities[1] == pytest.approx(perplexities[0], rel=0.01)
    assert perplexities[1] != perplexities[0]


@pytest.mark.parametrize(
    ("program", "strategy"),
    [
        pytest.param(["-m", "lce.cli"], "ddp", id="ddp"),
        pytest.param([str(Path(__file__).with_name("sharded.py"))], "fsdp_processor", id="fsdp"),
    ],
)
def test_two_processes_train_like_one(
    still: list[str], by_one: Path, program: list[str], strategy: str, tmp_path: Path
) -> None:
    options = [*still, *UNDIVIDED]
    shared = ["--trainer.devices", "2", "--trainer.strategy", strategy, "--experiment", str(tmp_path)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*launcher, *program, "train", *options, *shared],
        check=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    records = [
        json.loads((run / "seed-0/stereotypical/summary.json").read_text(encoding="utf-8"))["levels"]
        for run in (by_one, tmp_path)
    ]
    for one, two in zip(*records, strict=True):
        assert two["perplexity"] == pytest.approx(one["perplexity"], rel=1e-5)
    assert_like_one(dense_weights(by_one), dense_weights(tmp_path))


def test_several_devices_need_a_launcher(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(config), "--trainer.devices", "2"]) == 2
    assert "torchrun" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "value"), [("steps", "0"), ("batch_size", "-1"), ("max_length", "4096")])
def test_impossible_training_is_refused_and_leaves_the_folder_free(
    config: Path, key: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--config", str(config), f"--train.{key}", value]) == 2
    assert f"train.{key}" in capsys.readouterr().err
    assert main(["train", "--config", str(config), "--sparsities", "[0.4]"]) == 0


def test_a_finished_round_that_was_killed_before_it_was_saved(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    options = ["--config", str(config), "--sparsities", "[0.4]", "--train.checkpoint_every", "12"]
    with monkeypatch.context() as patched:
        patched.setattr("lce.training.pruning.imp.save_level", killed)
        assert main(["train", *options]) == 130
    assert main(["train", *options]) == 0
    assert main(["train", *options, "--experiment", str(config.parent / "whole")]) == 0
    assert weights(variant_folder(config)) == weights(config.parent / "whole/seed-0/stereotypical")


@pytest.mark.parametrize("sparsities", ["[0.4, 0.2]", "[0.2, 1.0]", "[-0.1, 0.4]"])
def test_impossible_sparsities_are_refused(config: Path, sparsities: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", str(config), "--sparsities", sparsities, "--sparsity", "0.0"]) == 2
    assert "sparsities: expected rising shares" in capsys.readouterr().err
