"""What users install: a wheel, in an environment of its own, away from the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

SHIPPED = ("lce", "configs", "checkpoints")
SOURCE = (*SHIPPED, "LICENSE", "README.md", "pyproject.toml", "setup.cfg")


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of ``command``, which sees the libraries of this environment, but not its editable lce."""
    environment = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def files() -> list[str]:
    """The names of the source's files, without what a build or a run has left among them."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *SOURCE]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir")
    subprocess.run([*pip, source / "dist", source], check=True)
    return next((source / "dist").iterdir())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet", "--no-deps")
    subprocess.run([*pip, wheel], check=True)
    return folder


def test_the_wheel_holds_every_file(files: list[str], wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in files:
        if name.startswith(SHIPPED):
            assert any(inside.endswith(name) for inside in names), name


def test_commands_work_in_any_folder(environment: Path, tmp_path: Path) -> None:
    where = run(environment / "bin/python", "-c", "import lce; print(lce.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    assert "localize" in run(environment / "bin/lce", "--help", cwd=tmp_path)

    tests = "[weat8, configs/bias/weat-race.yaml]"
    options = ("--evaluation.metrics", "[weat]", "--evaluation.weat", tests, "--limit", "5")
    out = run(environment / "bin/lce", "evaluate", "checkpoints/lce-bert-mini", *options, cwd=tmp_path)
    path = tmp_path / out.rstrip().splitlines()[-1]
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["model"]["name"] == "checkpoints/lce-bert-mini"
    assert result["scores"].keys() == {"weat8", "weat-race"}
    used = yaml.safe_load((path.with_suffix("") / "config.yaml").read_text(encoding="utf-8"))
    default = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8"))
    assert used["train"]["steps"] == default["train"]["steps"], "that configuration was read"
    assert not (tmp_path / "configs").exists()
    assert not (tmp_path / "checkpoints").exists()
