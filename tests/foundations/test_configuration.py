"""Whatever is given as a configuration, the answer is a run or one line that names the file, never a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import ROOT

from lce.cli import main
from lce.commands.arguments import settings_in
from lce.commands.registry import COMMANDS
from lce.foundations.errors import LceError

BOMB = "\n".join(["a: &a [x, x, x, x, x, x, x, x]", *(f"b{i}: &b{i} [{', '.join(['*a'] * 8)}]" for i in range(3))])
EXPONENTIAL = "\n".join(["b0: &b0 [x, x]", *(f"b{i + 1}: &b{i + 1} [*b{i}, *b{i}, *b{i}, *b{i}]" for i in range(30))])
ODD = {
    "empty": (b"", "is empty"),
    "comment": (b"# nothing\n", "is empty"),
    "list": (b"- a\n- b\n", "holds no settings"),
    "scalar": (b"train\n", "holds no settings"),
    "number": (b"3\n", "holds no settings"),
    "name without value": (b"train:\n", "train|holds no settings"),
    "binary": (bytes(range(256)), "cannot be read as YAML"),
    "control characters": (b"seed: \x07\n", "cannot be read as YAML"),
    "tabs": (b"train:\n\tsteps: 3\n", "cannot be read as YAML"),
    "unclosed quote": (b"base: 'x\n", "cannot be read as YAML"),
    "unclosed list": (b"sparsities: [0.3\n", "cannot be read as YAML"),
    "duplicate keys": (b"seed: 1\nseed: 2\n", "line 2: seed is given twice"),
    "duplicate keys below": (b"train:\n  steps: 1\n  steps: 2\n", "line 3: steps is given twice"),
    "deep": (b"a: " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    "deeper": (b"{a: " * 5000 + b"}" * 5000, "nested too deeply"),
    "itself": (b"data: &a {folder: *a}\n", "nested too deeply"),
    "aliases of aliases": (EXPONENTIAL.encode(), "holds more than 10,000 values"),
    "unknown alias": (b"seed: *a\n", "cannot be read as YAML"),
    "some aliases": (BOMB.encode(), "not accepted|nrecognized|not expected"),
    "date": (b"seed: 2020-01-01\n", "seed"),
    "wrong type": (b"train: {steps: many}\n", "train.steps: expected an integer"),
    "list for a group": (b"train: [1]\n", "train: expected settings below it, got [1]"),
    "nothing for a group": (b"seed: 1\ntrain:\n", "train: expected settings below it, got None"),
    "text for a group in a group": (b"data: {corpus: all}\n", "data.corpus: expected settings below it, got all"),
    "unknown key": (b"train: {stepz: 3}\n", "stepz"),
    "number for a key": (b"3: 4\n", "expected the name of a setting"),
    "list for a key": (b"[a, b]: 4\n", "expected the name of a setting"),
    "null for a key": (b"~: 4\n", "expected the name of a setting"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", "cannot be read as YAML"),
    "object": (b"seed: !!python/object/apply:os.system [true]\n", "cannot be read as YAML"),
    "itself as configuration": (b"config: other.yaml\n", "config"),
    "surrogate": (b'base: "\\ud800"\n', "cannot be read as YAML"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_configuration_gets_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = ODD[name]
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    assert main(["train", "--config", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lce: error: {path}")
    assert any(part in line for part in message.split("|"))


def test_a_configuration_that_is_none_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path, tmp_path / "missing.yaml", tmp_path / "a" / "b", "x" * 5000):
        assert main(["train", "--config", str(path)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"lce: error: {path}")


def mutant(text: str, chance: random.Random) -> bytes:
    """``text`` with one to four things wrong with it."""
    content = bytearray(text.encode())
    chunks = [b"\t", b"'", b'"', b"[", b"]", b"{", b"}", b":", b"- ", b"&a ", b"*a", b"\n", b"\x00", b"\xff", b"!!int "]
    chunks += [
        b"null",
        b"1e400",
        b"2020-01-01",
        b"-1",
        b"true",
        b"%",
        b"@",
        b"|",
        b">",
        b"? ",
        b"<<: ",
        b"0x1F",
        b"1_0",
    ]
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(content) + 1)
        end = min(len(content), place + chance.randint(0, 12))
        kind = chance.randrange(4)
        if kind == 0:
            content[place:place] = chance.choice(chunks)
        elif kind == 1:
            del content[place:end]
        elif kind == 2:
            content[place:end] = chance.choice(chunks)
        else:
            lines = content.split(b"\n")
            first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
            lines[first], lines[second] = lines[second], lines[first] + lines[second][:3]
            content = bytearray(b"\n".join(lines))
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "command", "mutants"),
    [
        ("quickstart", "train", 300),
        ("bert-base", "edit", 50),
        ("pretrain", "pretrain", 50),
        ("study", "sweep", 50),
        ("study-race", "sweep", 50),
        ("study-bert-base", "sweep", 50),
    ],
)
def test_mutants_of_a_configuration_are_read_or_refused(name: str, command: str, mutants: int, tmp_path: Path) -> None:
    text = (ROOT / f"configs/{name}.yaml").read_text(encoding="utf-8")
    path, refusals, settings = tmp_path / "mutant.yaml", [], COMMANDS[command][1].settings
    assert settings is not None
    for seed in range(mutants):
        path.write_bytes(mutant(text, random.Random(f"{name} {seed}")))
        try:
            settings_in(path, settings)
        except LceError as error:
            refusals.append(str(error))
    assert all(refusal.startswith(str(path)) for refusal in refusals)
    assert 0 < len(refusals) < mutants, "some are still good"
