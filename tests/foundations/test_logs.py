"""What is said where: the result alone on standard output, and no bars where nobody watches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of a shell: without what `quieten` has set in this process."""
    return {key: value for key, value in os.environ.items() if "DISABLE" not in key} | {"PYTHONPATH": str(ROOT)}


def test_a_training_in_a_pipe_prints_its_result_and_few_lines(
    config: Path, base: Path, environment: dict[str, str]
) -> None:
    published = shutil.copytree(base, config.parent / "published")  # with a head of its pretraining, like BERT
    head = {"cls.seq_relationship.weight": torch.zeros(2, 16)}
    save_file(load_file(base / "model.safetensors") | head, published / "model.safetensors", {"format": "pt"})
    command = [sys.executable, "-m", "lce.cli", "train", "--config", str(config), "--base", str(published)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{config.parent}/run/seed-0/stereotypical/summary.json\n"
    assert "\r" not in done.stderr
    assert len(done.stderr.encode()) < 2000
    lines = done.stderr.splitlines()
    for level in ("0%", "20%", "40%"):
        mine = [line for line in lines if line.startswith(f"stereotypical, {level} sparse: ")]
        assert ["step 0 of 12" in mine[0], "perplexity" in mine[1], len(mine)] == [True, True, 2]
    assert lines[0].endswith("prepares the text of 512 documents")
    assert len(lines) == 7


def test_bars_on_a_terminal_go_to_standard_error(config: Path, environment: dict[str, str]) -> None:
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    command = [sys.executable, "-m", "lce.cli", "train", "--config", str(config), "--sparsities", "[0.4]"]
    reading, writing = pty.openpty()
    termios.tcsetwinsize(writing, (24, 120))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=writing, text=True) as process:
        os.close(writing)
        seen = b""
        while chunk := _piece(reading):
            seen += chunk
        assert process.stdout is not None
        assert process.stdout.read() == f"{config.parent}/run/seed-0/stereotypical/summary.json\n"
    os.close(reading)
    assert process.returncode == 0
    text = seen.decode(errors="replace")
    assert "stereotypical, 40% sparse" in text
    assert "12/12" in text, "there is a bar"
    assert "Loading weights" not in text
    assert "Writing model shards" not in text


def _piece(reading: int) -> bytes:
    try:
        return os.read(reading, 65536)
    except OSError:  # the other end is closed
        return b""
