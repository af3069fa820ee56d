"""A disk that fills up at any moment of a command that writes: one line, nothing half-written, and on from there.

By default at a few sizes of what is left; at many by ``make kills``.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from architectures import saved
from conftest import write_config
from killing import contents

from lce.cli import main

SHARES = [i / 20 for i in range(20)] if os.environ.get("LCE_KILLS") == "all" else [0.0, 0.3, 0.9]
"""Shares of what the command needs that are left."""


def can_mount(folder: Path) -> bool:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        return False
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    return True


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """The ``folder`` on a disk with room for ``size`` bytes; where none can be mounted, files have a size limit."""
    folder.mkdir(exist_ok=True)
    if not can_mount(folder):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(size // 4, 1), limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            shutil.rmtree(folder)
        return
    options = f"size={max(4096, size // 4096 * 4096)}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no room at all."""
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 4096):
            pass


def try_all(command: list[str], place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Run ``command``, which writes into ``place``, on disks of several sizes."""
    place.mkdir(exist_ok=True)
    assert main(command) == 0
    expected = contents(place, is_log)
    needed = sum(max(4096, -(-path.stat().st_size // 4096) * 4096) for path in place.rglob("*"))
    shutil.rmtree(place)
    refused = 0
    for share in SHARES:
        with small_disk(place, round(share * needed)):
            if share == 0:
                fill(place)
            capfd.readouterr()
            status = main(command)
            err = capfd.readouterr().err
            if status == 0:
                assert contents(place, is_log) == expected
                continue
            refused += 1
            errors = [line for line in err.splitlines() if line.startswith("lce: error:")]
            assert (status, len(errors)) == (2, 1), err
            assert "Traceback" not in err
            assert ".lce-" not in errors[0], "what is named is what was to be written"
            assert "No space left on device" in errors[0] or "File too large" in errors[0], errors[0]
            assert not list(place.rglob(".lce-*")), "nothing half-written"
            found = contents(place, is_log)
            assert {name: expected[name] for name in found if name in expected} == {
                name: digest for name, digest in found.items() if name in expected
            }, "what is there is whole"
    assert refused


def is_log(path: Path) -> bool:
    return (
        "logs" in path.parts
        or path.suffix in (".lock", ".yaml", ".ckpt", ".html", ".png", ".md")
        or path.name in ("filler", "result.json")
        or "cache" in path.parts
        or "rounds" in path.parts
    )


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Two checkpoints in folders a and b, and patches from one to the other."""
    model = saved("bert", tmp_path / "a")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "b")
    a, b, p, whole = (str(tmp_path / name) for name in ("a", "b", "p.safetensors", "all.safetensors"))
    assert main(["edit", a, b, "--measure", "false", "--patch", p, "--output", str(tmp_path / "result")]) == 0
    assert main(["patch", "diff", a, b, "--out", whole]) == 0
    return tmp_path


def test_commands_on_checkpoints(pair: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a, b, p, all_of_it = (str(pair / name) for name in ("a", "b", "p.safetensors", "all.safetensors"))
    place = tmp_path / "disk"
    out = str(place / "out")
    for command in (
        ["localize", a, b, "--output", f"{out}.safetensors"],
        ["edit", a, b, "--share", "0.5", "--edited", out, "--measure", "false", "--output", f"{out}.result"],
        ["patch", "diff", a, b, "--out", out],
        ["patch", "apply", a, "--patch", all_of_it, "--out", out],
        ["patch", "revert", b, "--patch", all_of_it, "--out", out],
        ["patch", "compose", all_of_it, p, "--prefer", "first", "--out", out],
        ["patch", "scale", "--patch", p, "--alpha", "3", "--out", out],
        ["patch", "to-peft", a, "--patch", p, "--out", out],
        ["patch", "inspect", p, "--html", f"{out}.html"],
    ):
        try_all(command, place, tmp_path, capfd)


def test_data_and_training_and_measuring(
    tmp_path: Path, base: Path, sentences_file: Path, benchmarks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = str(write_config(elsewhere, base, sentences_file, benchmarks.parent))
    try_all(["data", "--config", config, "--data.folder", str(place / "data")], place, tmp_path, capfd)
    run = ["--config", config, "--sparsities", "[0.4]", "--experiment", str(place / "run")]
    try_all(["train", *run], place, tmp_path, capfd)
    few = ["--evaluation.limit", "4"]
    try_all(
        ["evaluate", str(base), "--config", config, *few, "--output", str(place / "scores.json")],
        place,
        tmp_path,
        capfd,
    )
    trained = ["--config", config, "--sparsities", "[0.4]"]
    for variant in ("stereotypical", "anti-stereotypical"):
        assert main(["train", *trained, "--variant", variant]) == 0
    try_all(["localize", *trained, "--output", str(place / "s.safetensors")], place, tmp_path, capfd)
    edit = ["edit", *trained, *few, "--random_baselines", "0", "--output", str(place / "out")]
    try_all(edit, place, tmp_path, capfd)


def test_a_training_goes_on_when_there_is_room_again(
    tmp_path: Path, base: Path, sentences_file: Path, benchmarks: Path
) -> None:
    config = write_config(tmp_path, base, sentences_file, benchmarks.parent)
    command = ["train", "--config", str(config), "--sparsities", "[0.4]"]
    assert main([*command, "--experiment", str(tmp_path / "whole")]) == 0
    needed = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    with small_disk(tmp_path / "run", 8 * needed):  # checkpoints, which go at the end, take most
        filler, statuses = tmp_path / "run/filler", []
        for left in (0.2, 0.5, 1, 2, 8):
            filler.write_bytes(b"\0" * round((8 - left) * needed))
            statuses.append(main(command))
        assert statuses[0] == 2
        assert statuses[-1] == 0
        assert contents(tmp_path / "run/seed-0", is_log) == contents(tmp_path / "whole/seed-0", is_log)
