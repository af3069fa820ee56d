"""Runs that are ended at any moment: nothing half-written is taken for a result, and the same command ends alike.

By default a few moments of each stage; all of them by ``make kills``. Temporary files go to another file system.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random

import pytest
import torch
from architectures import saved
from conftest import write_config
from killing import Moment, another_file_system, check_ending, contents, run

from lce.patch.between import patch_between

THOROUGH = os.environ.get("LCE_KILLS") == "all"
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass
class Job:
    """A command in a folder, the names of its results there, and its stages with how often each is reached."""

    command: list[str]
    results: list[str]
    stages: dict[str, int]


def is_log(path: Path) -> bool:
    """TensorBoard's files and locks, which are no results, and what names the folder."""
    return "logs" in path.parts or path.suffix in (".lock", ".yaml") or path.name == "result.json"


def moments(stages: dict[str, int], random: Random) -> list[Moment]:
    """Of each stage one moment, or (thorough) six."""
    return [
        Moment(stage, random.randrange(1, count + 1), random.random() < 0.6)
        for stage, count in stages.items()
        for _ in range(6 if THOROUGH else 1)
    ]


def try_all(folder: Path, prepare: Callable[[Path], Job], seed: str) -> None:
    """End the command at moments of each stage, by each signal in turn, and run it again."""
    elsewhere = another_file_system(folder)
    whole = folder / "whole"
    job = prepare(whole)
    assert run(job.command, folder / "said", TMPDIR=elsewhere).status == 0
    expected = {name: contents(whole / name, is_log) for name in job.results}
    random, signals = Random(seed), cycle(SIGNALS)
    ended = 0
    for moment in moments(job.stages, random):
        number, place = next(signals), folder / "ended"
        job = prepare(place)
        ending = run(job.command, folder / "said", moment, number, TMPDIR=elsewhere)
        about = f"{moment}, {signal.Signals(number).name}"
        if ending.status != 0:  # the stage may be over sooner than expected
            check_ending(ending, number)
            ended += 1
            again = run(job.command, folder / "said", TMPDIR=elsewhere)
            # Where the signal came right after the result, a new folder of that name is refused.
            assert again.status == 0 or "exists already" in again.err, f"{about}: {again.err}"
        for name, files in expected.items():
            assert contents(place / name, is_log) == files, f"{about}: {name}"
        assert not list(place.rglob("*.tmp")), about
        shutil.rmtree(place)
    shutil.rmtree(elsewhere)
    print(f"{ended} runs of {job.command[:2]} ended")
    assert ended >= len(job.stages) * 0.7


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Two checkpoints in folders a and b, and a patch from one to the other."""
    model = saved("llama", tmp_path / "pair/a")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in list(model.parameters())[:6]:
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "pair/b")
    patch_between(tmp_path / "pair/a", tmp_path / "pair/b", tmp_path / "pair/p.safetensors")
    return tmp_path / "pair"


def test_apply_and_diff_and_edit_of_checkpoints(pair: Path, tmp_path: Path) -> None:
    a, b, patch = (str(pair / name) for name in ("a", "b", "p.safetensors"))

    def applies(folder: Path) -> Job:
        folder.mkdir()
        command = ["patch", "apply", a, "--patch", patch, "--out", str(folder / "out")]
        return Job(command, ["out"], {"start": 1, "write": 20, "rename": 1})

    def diffs(folder: Path) -> Job:
        folder.mkdir()
        command = ["patch", "diff", a, b, "--out", str(folder / "out/p")]
        return Job(command, ["out"], {"start": 1, "spool": 12, "rename": 1})

    def edits(folder: Path) -> Job:
        folder.mkdir()
        outputs = ["--edited", str(folder / "out/EDITED"), "--patch", str(folder / "out/EDITED.patch.safetensors")]
        outputs += ["--output", str(folder / "results"), "--measure", "false"]
        return Job(["edit", a, b, *outputs], ["out"], {"start": 1, "spool": 20, "write": 20, "rename": 4})

    for prepare in (applies, diffs, edits):
        (tmp_path / prepare.__name__).mkdir()
        try_all(tmp_path / prepare.__name__, prepare, prepare.__name__)


def test_train(tmp_path: Path, base: Path, sentences_file: Path, benchmarks: Path) -> None:
    def prepare(folder: Path) -> Job:
        folder.mkdir()
        config = write_config(folder, base, sentences_file, benchmarks.parent)
        command = ["train", "--config", str(config), "--sparsities", "[0.4]"]
        stages = {"start": 1, "data": 1, "fit": 24, "checkpoint": 4, "validation": 6, "rename": 17}
        return Job(command, ["run/seed-0/stereotypical"], stages)

    try_all(tmp_path, prepare, "train")


def test_edit(tmp_path: Path, base: Path, sentences_file: Path, benchmarks: Path) -> None:
    trained = tmp_path / "trained"
    trained.mkdir()
    config = write_config(trained, base, sentences_file, benchmarks.parent)
    for variant in ("stereotypical", "anti-stereotypical"):
        command = ["train", "--config", str(config), "--sparsities", "[0.4]", "--variant", variant]
        assert run(command, tmp_path / "said").status == 0

    def prepare(folder: Path) -> Job:
        folder.mkdir()
        shutil.copytree(trained / "run", folder / "run")
        options = ["--sparsities", "[0.4]", "--random_baselines", "0", "--evaluation.metrics", "[weat]"]
        fixed = ["--target", str(trained / "run/seed-0/stereotypical/sparsity-40")]
        fixed += ["--reference", str(trained / "run/seed-0/anti-stereotypical/sparsity-40")]
        command = ["edit", "--config", str(config), "--experiment", str(folder / "run"), *fixed, *options]
        command += ["--output", str(folder / "out")]
        return Job(command, ["out"], {"start": 1, "measurement": 3, "spool": 4, "rename": 6})

    try_all(tmp_path, prepare, "edit")


@pytest.mark.parametrize("number", SIGNALS if THOROUGH else SIGNALS[:2])
def test_random_moments_of_a_training(
    number: int, tmp_path: Path, base: Path, sentences_file: Path, benchmarks: Path
) -> None:
    """By the clock, so that moments come that nobody thought of."""
    whole = tmp_path / "whole"
    elsewhere = another_file_system(tmp_path)
    whole.mkdir()
    options = ["--sparsities", "[0.4]", "--train.steps", "40", "--train.checkpoint_every", "3"]
    config = write_config(whole, base, sentences_file, benchmarks.parent)
    assert run(["train", "--config", str(config), *options], tmp_path / "said").status == 0
    expected = contents(whole / "run/seed-0/stereotypical", is_log)
    random = Random(number)
    place = tmp_path / "ended"
    place.mkdir()
    config = write_config(place, base, sentences_file, benchmarks.parent)
    command = ["train", "--config", str(config), *options]
    for _ in range(20 if THOROUGH else 2):
        ending = run(command, tmp_path / "said", random.uniform(0.02, 4.0), number, TMPDIR=elsewhere)
        if ending.status == 0:
            break
        check_ending(ending, number)
    assert run(command, tmp_path / "said", TMPDIR=elsewhere).status == 0
    assert contents(place / "run/seed-0/stereotypical", is_log) == expected
    shutil.rmtree(elsewhere, ignore_errors=True)
