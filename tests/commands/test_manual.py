"""The help: examples first, the options used most next, and the values that would run, with where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from lce.cli import main
from lce.commands.patch import ACTIONS
from lce.commands.registry import COMMANDS

COMMAND_LINES = [[name] for name in COMMANDS if name != "patch"]
COMMAND_LINES += [["patch", action] for action in ACTIONS]
COMMAND_LINES += [["edit", "A", "B"], ["localize", "A", "B"]]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--help"])
    assert not end.value.code
    return capsys.readouterr().out


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("arguments", COMMAND_LINES, ids=" ".join)
def test_examples_come_before_the_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, *arguments)
    examples, options = printed.index("examples:\n  "), printed.index("frequent options:")
    assert examples < options
    assert "lce " + " ".join(arguments[:2] if arguments[0] == "patch" else arguments[:1]) in printed[examples:options]


@pytest.mark.parametrize("arguments", [[], ["patch"]], ids=["lce", "lce patch"])
def test_the_commands_are_listed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, *arguments)
    assert all(f"\n  {name} " in printed for name in (ACTIONS if arguments else COMMANDS))
    assert "examples:" in printed


def test_help_says_what_would_run_and_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    printed = words(shown(capsys, "train"))
    assert "Optimiser steps of one round. (500, from configs/quickstart.yaml)" in printed
    assert "Encoder layers" not in printed
    assert "Average probability of masking a token. (default: 0.15)" in printed
    assert "13881" not in printed
    printed = words(shown(capsys, "train", "--config", "configs/bert-base.yaml"))
    assert "(13881, from configs/bert-base.yaml)" in printed
    assert "(512, from configs/bert-base.yaml)" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["edit"], "(64, from configs/quickstart.yaml)"),
        (["localize"], "(runs/quickstart, from configs/quickstart.yaml)"),
        (["evaluate"], "(cpu, from configs/quickstart.yaml)"),
        (["data"], "(0.2, from configs/quickstart.yaml)"),
        (["sweep"], "([0, 1], from configs/study.yaml)"),
        (["pretrain", "--config", "configs/pretrain.yaml"], "(4500, from configs/pretrain.yaml)"),
        (["pretrain"], "(default: 13881)"),
        (["sweep", "--config", "configs/study-race.yaml"], "(2 of them, from configs/study-race.yaml)"),
    ],
)
def test_every_command_says_where_its_values_come_from(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in words(shown(capsys, *arguments))


def test_options_stand_under_headings_and_only_where_they_matter(capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys, "edit")
    places = [printed.index(f"\n{title}") for title in ("frequent options:", "data (", "train (", "evaluation (")]
    assert places == sorted(places)
    assert printed.index("--alpha") < printed.index("--data.language")
    assert "--train.learning_rate" not in printed
    assert "--train.max_length" in printed
    printed = shown(capsys, "train")
    assert "--strategy" not in printed
    assert "--trainer.strategy" in printed
    assert "--trust_remote_code" in printed
    assert "SUPPRESS" not in printed


def test_the_default_configuration_is_found_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "(500, from configs/quickstart.yaml)" in words(shown(capsys, "train"))


def test_required_options_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "patch file (required)" in words(shown(capsys, "patch", "apply"))
    assert "quickstart.yaml (required)" not in words(shown(capsys, "edit"))
