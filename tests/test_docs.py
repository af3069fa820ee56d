"""README and docs: the commands that they show work, and what they point to exists.

The blocks of a page are run in order, in one folder with a small configuration. Commands of a block that is marked
``<!-- not run: why -->`` are only parsed, and of ``make`` only the target is looked up.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file, save_file

from lce.cli import _parse, main
from lce.edit.strategies import STRATEGIES

PAGES = [
    ROOT / "README.md",
    *(page for name in ("docs", "checkpoints") for page in sorted((ROOT / name).rglob("*.md"))),
]
BLOCK = re.compile(r"(<!-- not run: .+ -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
PATH = re.compile(r"\b(?:lce|configs|docs|examples|tests)/(?:[\w-]+/)*[\w-]+\.\w+")


def blocks(page: Path) -> list[tuple[bool, str, str]]:
    """Whether it is run, language and content of each fenced block."""
    return [(not marked, language, code) for marked, language, code in BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands(code: str) -> list[list[str]]:
    lines = code.replace("\\\n", " ").splitlines()
    found = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [words for words in found if words]


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base: Path, sentences_file: Path, benchmarks: Path) -> Path:
    """What the pages take as given: models by the names that stand for them, texts, and a small configuration."""
    folder = tmp_path_factory.mktemp("docs")
    reference = folder / "REFERENCE"
    shutil.copytree(base, reference)
    tensors = load_file(reference / "model.safetensors")
    noise = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        tensors[name] = tensor + (0.01 * torch.randn(tensor.shape, generator=noise)).to(tensor.dtype)
    save_file(tensors, reference / "model.safetensors", metadata={"format": "pt"})
    for name in ("TARGET", "MODEL", "bert-base-uncased"):
        (folder / name).symlink_to(base)
    (folder / "BASE").symlink_to(reference)
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "data").mkdir()
    (folder / "data/downloads").symlink_to(benchmarks.parent)
    shutil.copy(sentences_file, folder / "my.txt")
    shutil.copy(ROOT / "lce/metrics/weat/weat8.yaml", folder / "my-test.yaml")
    settings = {
        "experiment": "runs/quickstart",
        "random_baselines": 0,
        "data": {"folder": "data/quickstart", "corpus": {"source": "files", "files": ["my.txt"]}},
        "evaluation": {"limit": 4},
        "trainer": {"accelerator": "cpu"},
    }
    (folder / "configs").mkdir()
    (folder / "configs/quickstart.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] == "lce":
        assert main(words[1:]) == 0, words
    elif words[0] == "python":
        monkeypatch.setattr(sys, "argv", words[1:])
        runpy.run_path(words[1], run_name="__main__")
    else:
        check(words)


def check(words: list[str]) -> None:
    """The command is understood, as far as that can be told without running it."""
    if words[0] == "lce":
        _parse(words[1:])
    elif "lce.cli" in words:
        _parse(words[words.index("lce.cli") + 1 :])
    elif words[0] == "make":
        subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_what_a_page_shows_can_be_done(page: Path, folder: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(folder, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lce.edit.strategies.STRATEGIES", dict(STRATEGIES))  # a page adds one
    for is_run, language, code in blocks(page):
        if language == "python":
            exec(compile(code, str(page), "exec"), {})
        for words in commands(code) if language == "sh" else []:
            if is_run:
                run(words, monkeypatch)
            else:
                check(words)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [path for path in PATH.findall(text) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_commands_stand_in_fenced_blocks(page: Path) -> None:
    assert not re.findall(r"^ {4}(?:lce|make|python|torchrun) .*", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) < 150
    assert commands(blocks(readme)[0][2]) == [["make", "edit", "ALPHA=2"], ["make", "test"]]


def test_the_readme_shows_the_table_that_is_printed() -> None:
    printed = blocks(ROOT / "README.md")[1][2].splitlines()
    headings = re.split(r"\s{2,}", printed[1].strip())
    assert len(headings) == 5
    code = (ROOT / "lce/commands/tables.py").read_text(encoding="utf-8")
    assert ", ".join(f'"{heading}"' for heading in headings) in code
