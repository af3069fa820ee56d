"""What can go wrong around a training: signals, damaged checkpoints, another base, a second process, divergence."""

from __future__ import annotations

import errno
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
from conftest import tiny_bert
from killing import Moment, answer_interrupts, check_ending, contents, run
from transformers import BertTokenizer

from lce.cli import main
from lce.foundations.ranks import rank
from lce.storage.hub import identity
from lce.study.cells import Cell, cell_name
from lce.study.context import context_of
from lce.study.settings import StudySettings
from lce.training.checkpoints import AtomicCheckpointIO, last_checkpoint

FIRST = "run/seed-0/stereotypical"
OPTIONS = ["--sparsities", "[0.4]"]


@pytest.mark.parametrize(
    ("number", "program"), [(signal.SIGTERM, ["-m", "lce"]), (signal.SIGINT, ["-m", "lce.cli"])], ids=["TERM", "INT"]
)
def test_signals_end_a_command_with_their_status_and_one_line(number: int, program: list[str], config: Path) -> None:
    command = [sys.executable, *program, "train", "--config", str(config), "--train.steps", "2000"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=answer_interrupts
    )
    while not list((config.parent / FIRST).glob("rounds/*/checkpoints/*.ckpt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = err.splitlines()[-1]
    assert last == f"lce: stopped by {signal.Signals(number).name}; the same command resumes from here"
    assert out == ""
    assert "Traceback" not in err


def test_signals_are_answered_while_lce_is_imported() -> None:
    process = subprocess.Popen([sys.executable, "-m", "lce", "train"], stderr=subprocess.PIPE, text=True)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines() == ["lce: stopped by SIGTERM; the same command resumes from here"]


def test_a_second_signal_ends_what_hangs(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from lce.foundations.signals import stopping\n"
        "with stopping():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('tidying up', flush=True)\n"
        "        time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for said in ("ready\n", "tidying up\n"):
            assert process.stdout.readline() == said
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143


def test_a_damaged_checkpoint_is_said_and_the_level_starts_anew(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = ["train", "--config", str(config), *OPTIONS]
    assert main([*command, "--experiment", str(config.parent / "whole")]) == 0
    check_ending(run(command, config.parent / "said", Moment("fit", 11), signal.SIGKILL), signal.SIGKILL)
    last = config.parent / FIRST / "rounds/sparsity-00/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    assert main(command) == 0
    warnings = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(warnings) == 1
    assert "this round starts anew" in warnings[0]
    assert "\n" not in warnings[0]
    assert results(config.parent / "run") == results(config.parent / "whole")


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "pickle"])
def test_damaged_checkpoints_are_put_aside(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state": torch.arange(10_000), "step": 3}, path)
    assert last_checkpoint(tmp_path) == path
    content = path.read_bytes()
    half = len(content) // 2
    changed = {
        "empty": b"",
        "cut": content[:half],
        "flipped": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
        "pickle": b"cos\nsystem\n(S'true'\ntR.",
    }
    path.write_bytes(changed[damage])
    assert last_checkpoint(tmp_path) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.damaged"]


def test_a_checkpoint_that_cannot_be_read_now_stays(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config", str(config), *OPTIONS]
    check_ending(run(command, config.parent / "said", Moment("fit", 11), signal.SIGKILL), signal.SIGKILL)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("lce.training.checkpoints.torch.load", fails)
        assert main(command) == 2
    assert "last.ckpt: cannot be read now" in capsys.readouterr().err
    assert (config.parent / FIRST / "rounds/sparsity-00/checkpoints/last.ckpt").exists()
    assert main(command) == 0


@pytest.mark.parametrize(("key", "expected"), [("RANK", 3), ("LOCAL_RANK", 3), ("SLURM_PROCID", 3), ("OTHER", 0)])
def test_processes_that_train_together_know_their_rank(
    key: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key, "3")
    assert rank() == expected


def test_a_pipe_that_breaks_elsewhere_is_no_success(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("lce.training.pruning.imp.iterative_magnitude_pruning", breaks)
    with pytest.raises(BrokenPipeError):
        main(["train", "--config", str(config)])


def test_a_second_process_waits_for_the_text(config: Path) -> None:
    """And uses it, if it wants the same; else it is refused."""
    commands = [
        [sys.executable, "-m", "lce", "data", "--config", str(config), "--data.min_words", words]
        for words in ("4", "4", "5")
    ]
    running = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for c in commands]
    said = [process.communicate(timeout=120)[1] for process in running]
    statuses = [process.returncode for process in running]
    recorded = (config.parent / "data/made-with.yaml").read_text(encoding="utf-8")
    kept = "4" if "min_words: 4" in recorded else "5"
    for command, status, err in zip(commands, statuses, said, strict=True):
        assert status == (0 if command[-1] == kept else 2), err


def results(experiment: Path) -> dict[str, str]:
    return contents(experiment, lambda path: path.suffix not in (".safetensors", ".json"))


def test_a_base_that_is_replaced_between_levels_is_refused(
    config: Path, base: Path, tokenizer: BertTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    own = config.parent / "base"
    shutil.copytree(base, own)
    command = ["train", "--config", str(config), "--base", str(own)]
    assert main([*command, "--sparsities", "[0.2]", "--sparsity", "0.2"]) == 0
    record = json.loads((config.parent / FIRST / "sparsity-20/subnetwork/record.json").read_text(encoding="utf-8"))
    assert (record["base_fingerprint"], record["base_commit"]) == (identity(own).fingerprint, None)
    tiny_bert(BertTokenizer.from_pretrained(base), seed=1).save_pretrained(own)
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"base_fingerprint was '{record['base_fingerprint']}', now '{identity(own).fingerprint}'" in error
    assert not (config.parent / FIRST / "sparsity-40").exists()


def test_the_bases_content_is_part_of_a_cells_name(base: Path, tmp_path: Path) -> None:
    own = tmp_path / "base"
    shutil.copytree(base, own)
    study, cell = StudySettings(base=str(own)), Cell("train", 0, 0.0, "stereotypical")
    name = cell_name(study, context_of(study, {}), cell)
    assert cell_name(study, context_of(study, {}), cell) == name
    (own / "README.md").write_text("another", encoding="utf-8")
    assert cell_name(study, context_of(study, {}), cell) == name
    tiny_bert(BertTokenizer.from_pretrained(base), seed=1).save_pretrained(own)
    assert cell_name(study, context_of(study, {}), cell) != name


def test_levels_of_an_older_lce_are_taken_over(config: Path) -> None:
    """It did not record what its base was."""
    command = ["train", "--config", str(config)]
    assert main([*command, "--sparsities", "[0.2]", "--sparsity", "0.2"]) == 0
    path = config.parent / FIRST / "made-with.yaml"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "base_fingerprint" not in line]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert main(command) == 0
    assert "base_fingerprint" in path.read_text(encoding="utf-8")


def test_a_second_training_in_a_folder_is_refused(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lce.foundations.locks.PATIENCE", 1.0)
    command = [sys.executable, "-m", "lce", "train", "--config", str(config), "--train.steps", "2000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list((config.parent / FIRST).glob("rounds/*/logs/*")):
            assert process.poll() is None
            time.sleep(0.02)
        assert main(["train", "--config", str(config), "--train.steps", "2000"]) == 2
        assert "another training is at work there" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()


def test_a_training_that_diverges_ends_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--train.steps", "300", "--train.checkpoint_every", "1", "--train.learning_rate", "1e30"]
    assert main(["train", "--config", str(config), *OPTIONS, *options]) == 2
    error = capsys.readouterr().err
    assert "the training diverged: the loss is nan after step" in error
    assert "lower train.learning_rate" in error
    assert not (config.parent / FIRST / "sparsity-00").exists()
    assert main(["train", "--config", str(config), *OPTIONS]) == 0, "its folder is free again"


def test_files_of_a_level_can_be_read_by_others(config: Path) -> None:
    before = os.umask(0o022)
    try:
        assert main(["train", "--config", str(config), *OPTIONS]) == 0
    finally:
        os.umask(before)
    files = [path for path in (config.parent / FIRST / "sparsity-40").rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o644"}
