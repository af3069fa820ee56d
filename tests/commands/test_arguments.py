"""From the command line to values: quickly, without the libraries that do the work, and with the right one winning."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from lce.cli import _parse, main
from lce.config import DataSettings
from lce.training.trainer_options import numerics

HEAVY = ("torch", "lightning", "transformers", "datasets", "pyarrow", "pandas", "ray")
PROBE = f"""
import json, sys
from lce.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print(json.dumps([status, [name for name in {HEAVY} if name in sys.modules]]))
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["train", "--no_such_option", "1"], 2),
        (["train", "--strategy", "pruning"], 2),
        (["train", "--train.steps", "0"], 2),
        (["sweep", "--seeds", "[-1]"], 2),
        (["edit", "A", "B", "--share", "0"], 2),
        (["edit", "A", "--alpha", "2"], 2),
        (["patch", "apply"], 2),
        (["edit", "heads", "--size", "0"], 2),
        (["localize", "heads", "MODEL", "--templates", "[none]"], 2),
        (["pretrain-clip", "--shares", "{cook: 2}"], 2),
        (["edit", "--help"], 0),
        (["edit", "heads", "--help"], 0),
        (["sweep", "--help"], 0),
        (["patch", "diff", "--help"], 0),
        (["--version"], 0),
        (["nonsense"], 2),
    ],
)
def test_a_bad_command_is_refused_without_the_heavy_libraries(arguments: list[str], status: int) -> None:
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [status, []]
    assert len(done.stderr.splitlines()) == (1 if status else 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected `lce COMMAND`; the commands are data, pretrain, pretrain-clip, pretrain-projector, train"),
        (["nonsense"], "unknown command `lce nonsense`; the commands are data"),
        (["patch"], "expected `lce patch COMMAND`; the commands are diff"),
        (["patch", "nonsense"], "unknown command `lce patch nonsense`; the commands are diff"),
        (["train", "--config"], "--config: expected the name of a YAML file"),
        (["train", "--train.steps", "many"], "train.steps: expected an integer. Got value: many"),
        (["train", "--variant", "other"], "variant: expected one of 'stereotypical', 'anti-stereotypical'"),
        (["train", "stray"], "unrecognized arguments: stray"),
        (["edit", "A"], "expected TARGET and REFERENCE, or neither; got A"),
        (["edit", "A", "B", "C"], "expected TARGET and REFERENCE, or neither; got A B C"),
        (["edit", "A", "B", "--target", "C"], "target: is given twice"),
        (["train", "--seed", "1", "--seed=2"], "seed: is given twice"),
    ],
)
def test_what_cannot_be_understood_gets_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lce: error: {message}")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert not end.value.code
    assert capsys.readouterr().out.startswith("lce 0.")


def test_the_command_line_wins_wherever_the_configuration_stands(tmp_path: Path) -> None:
    config = tmp_path / "one.yaml"
    config.write_text("seed: 3\nalpha: [1, 3]\ntrain: {steps: 7, learning_rate: 1e-3}\n", encoding="utf-8")
    further = tmp_path / "two.yaml"
    further.write_text("train: {steps: 8}\n", encoding="utf-8")
    for arguments in (["--config", str(config), "--seed", "5"], ["--seed", "5", f"--config={config}"]):
        _, values = _parse(["edit", *arguments, "--config", str(further)])
        assert (values.seed, values.alpha) == (5, [1.0, 3.0])
        assert (values.train.steps, values.train.learning_rate, values.train.batch_size) == (8, 0.001, 64)


@pytest.mark.parametrize(
    "arguments",
    [
        "A B --alpha 2 --share 0.2",
        "--alpha 2 A B --share 0.2",
        "--alpha 2 A --share=0.2 B",
        "--share 0.2 --alpha=2 A B",
        "--alpha [2] --share 0.2 A B",
        "--target A --reference B --alpha 2 --share 0.2",
    ],
)
def test_options_stand_anywhere(arguments: str) -> None:
    _, values = _parse(["edit", *arguments.split()])
    assert (values.target, values.reference, values.alpha, values.share) == ("A", "B", [2.0], 0.2)


def test_an_option_that_takes_a_list_takes_the_numbers_after_it() -> None:
    _, values = _parse(["edit", "--alpha", "0", "-2", ".5", "1e1", "A", "B"])
    assert (values.alpha, values.target) == ([0.0, -2.0, 0.5, 10.0], "A")
    _, values = _parse(["train", "--sparsities", "0.1", "0.3", "--sparsity", "0.3"])
    assert values.sparsities == [0.1, 0.3]


def test_a_share_on_the_command_line_wins_over_a_count_of_a_configuration(tmp_path: Path) -> None:
    counts, shares = tmp_path / "counts.yaml", tmp_path / "shares.yaml"
    counts.write_text("count: 50\n", encoding="utf-8")
    shares.write_text("share: 0.4\n", encoding="utf-8")
    for arguments, size in (
        (["--config", str(counts)], (0.1, 50)),
        (["--config", str(counts), "--share", "0.2"], (0.2, None)),
        (["--config", str(counts), "--config", str(shares)], (0.4, None)),
        (["--config", str(shares), "--count", "7"], (0.4, 7)),
    ):
        _, values = _parse(["edit", *arguments])
        assert (values.share, values.count) == size


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configuration_says_what_it_says(path: Path) -> None:
    own = {
        "pretrain": "pretrain", "clip": "pretrain-clip", "debias": "edit", "features": "edit features",
        "vlm": "pretrain-projector", "audit": "edit heads", "audit-skin-tone": "edit heads",
        "lals": "edit directions", "sae": "train-sae",
    }  # fmt: skip
    command = "sweep" if "study" in path.stem else own.get(path.stem, "train")
    _, values = _parse([*command.split(), "--config", str(path)])
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group, key in (("train", "steps"), ("data", "folder")):
        if group in content:
            assert getattr(getattr(values, group), key) == content[group][key]
        else:
            assert command.startswith(("edit", "pretrain-")) or {"features", "heads"} & set(content)
    assert command != "edit" or values.contrast == content["contrast"]


def test_configurations_that_share_a_folder_of_text_make_the_same_text_there() -> None:
    made: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        if "folder" not in (content := yaml.safe_load(path.read_text(encoding="utf-8")).get("data", {})):
            continue
        folder = content.pop("folder")
        content.pop("processes", None)
        assert made.setdefault(folder, content) == content, path
    assert DataSettings().folder not in made, "what is made by the defaults alone would be refused there"


def test_the_options_of_the_trainer_are_those_that_results_are_named_by() -> None:
    """`numerics` goes into the names of results: its keys, their order and the words for their values stay."""
    _, values = _parse(["train", "--config", str(ROOT / "configs/quickstart.yaml")])
    options = values["trainer"].as_dict()
    assert options == {
        **{"accelerator": "cpu", "strategy": "auto", "devices": 1, "num_nodes": 1, "precision": None},
        **{"log_every_n_steps": 10, "accumulate_grad_batches": 1},
        **{"gradient_clip_val": None, "gradient_clip_algorithm": None},
    }
    names = ("precision", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
    assert list(numerics(options).items()) == list(zip(names, ("None", "1", "None", "None"), strict=True))
