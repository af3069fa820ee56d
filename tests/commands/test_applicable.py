"""An option that does not matter to a command is refused on the command line, and may stand in a configuration."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from lce.cli import _parse, main
from lce.commands.manual import texts
from lce.config import Settings
from lce.foundations.errors import LceError
from lce.training.pruning.imp import schedule


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --strategy pruning", "--strategy does not apply to lce train"),
        ("train --evaluation.limit 3", "--evaluation.limit does not apply to lce train"),
        ("data --trainer.devices 1", "--trainer.devices does not apply to lce data"),
        ("edit --train.steps 3", "--train.steps does not apply to lce edit"),
        ("evaluate M --alpha 2", "--alpha does not apply to lce evaluate"),
        ("evaluate M --limit 2 --evaluation.limit 3", "--evaluation.limit does not apply together with --limit"),
        ("edit --strategy pruning --alpha 3", "--alpha does not apply to pruning and mask-switch"),
        ("edit --strategy mask-switch --alpha=3", "--alpha does not apply to pruning and mask-switch"),
        ("edit --localization mask --share 0.1", "--share does not apply to the mask-based localization"),
        ("localize --localization mask --count 9", "--count does not apply to the mask-based localization"),
        ("edit --selection S --localization value", "--localization does not apply together with --selection"),
        ("edit --selection S --share 0.1", "--share does not apply together with --selection"),
        ("train --data.corpus.files [a.txt]", "--data.corpus.files does not apply without --data.corpus.source files"),
        ("data --data.corpus.streaming true", "--data.corpus.streaming does not apply without --data.corpus.source"),
        ("edit --evaluation.metrics [weat] --evaluation.bias_type race", "--evaluation.bias_type does not apply where"),
        ("edit A B --share 0.1 --count 9", "--share, --count: give one of them"),
        ("edit A B --measure false --random_baselines 3", "--random_baselines does not apply without measuring"),
        ("edit A B --measure false --evaluation.limit 3", "--evaluation.limit does not apply without measuring"),
        ("localize heads M --edits [mean]", "--edits does not apply to lce localize heads"),
        ("localize heads M --random_sets 3", "--random_sets does not apply to lce localize heads"),
        ("edit heads M --measure false --random_sets 3", "--random_sets does not apply without measuring"),
        ("edit heads M --measure false --matched scene", "--matched does not apply without measuring"),
        ("localize A B --selection S", "--selection does not apply to lce localize"),
        ("edit A B --patch p --selection S --tensors [x]", "--tensors does not apply together with --selection"),
        ("edit A B --patch p --strategy pruning --alpha 2", "--alpha does not apply to pruning and mask-switch"),
        ("edit A B --patch p --strategy pruning --full_step false", "--full_step does not apply to pruning"),
    ],
)
def test_an_option_without_effect_is_refused(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lce: error: {message}")


@pytest.mark.parametrize(
    "command",
    [
        "edit --localization value --share 0.1 --strategy pruning",
        "edit --share 0.1",
        "edit A B --selection S --strategy mask-switch --sparsity 0.5 --output o",
        "edit A B --localization mask --sparsity 0.5 --patch p --old_values false --full_step false",
        "localize A B --localization mask --sparsity 0.5 --output o",
        "edit heads M --measure false --edits [projection] --patch p",
        "localize heads M --attribute age --size 2 --output o",
        "sweep --share 0.2 --sparsity 0.2 --train.steps 3",
    ],
)
def test_an_option_with_effect_is_taken(command: str) -> None:
    _parse(command.split())


@pytest.mark.parametrize("command", [example for of in texts().values() for example in of.get("examples", [])])
def test_what_the_help_shows_is_understood(command: str) -> None:
    arguments = shlex.split(command, comments=True)
    arguments = arguments[arguments.index("lce.cli") + 1 :] if "lce.cli" in arguments else arguments
    _parse(arguments[1:] if arguments[0] == "lce" else arguments)


def test_a_configuration_may_hold_what_does_not_apply(tmp_path: Path) -> None:
    config = tmp_path / "all.yaml"
    config.write_text("strategy: pruning\nalpha: [3]\nshare: 0.2\nevaluation: {limit: 3}\n", encoding="utf-8")
    for command in ("train", "edit", "localize", "data"):
        _parse([command, "--config", str(config)])


def test_sparsities_that_the_configured_sparsity_would_replace_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--sparsities", "[0.5]"]) == 2
    error = capsys.readouterr().err
    assert "the sparsity 0.3, from configs/quickstart.yaml, is not among [0.5]; give --sparsity too" in error
    config = tmp_path / "one.yaml"
    config.write_text("sparsities: [0.2, 0.5]\n", encoding="utf-8")
    assert main(["train", "--config", str(config)]) == 2
    assert "the sparsity 0.3, from the default, is not among [0.2, 0.5]" in capsys.readouterr().err
    for allowed in (["--sparsity", "0.5"], ["--sparsity", "0.0"], ["--sparsity", "0.4"]):
        _parse(["train", "--sparsities", "[0.2, 0.5]", *allowed])
    _parse(["train", "--sparsity", "0.5"])


def test_sparsities_off_the_way_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lce"):
        assert schedule(Settings(sparsities=[0.1, 0.2, 0.4], sparsity=0.3)) == [0.0, 0.1, 0.2, 0.3]
    assert "[0.4] are left out" in caplog.text
    with pytest.raises(LceError, match="rising shares"):
        schedule(Settings(sparsities=[0.2, 0.1], sparsity=0.1))
