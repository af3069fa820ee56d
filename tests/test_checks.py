"""Values that cannot be right are refused in one line, before text is fetched or a model is loaded."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from conftest import ROOT

import lce
from lce.checks import check_localization, check_pretraining, check_settings
from lce.cli import main
from lce.config import EditSettings, PretrainSettings, Settings
from lce.foundations.errors import LceError
from lce.study.settings import DownstreamSettings, EditBlock, StudySettings
from lce.study.study_checks import check_study

BEGINNING = ("lce.data.prepare.prepare_examples", "lce.data.wheels.fetch", "lce.models.loading.load_language_model")
"""What fetches or loads."""


@pytest.fixture(autouse=True)
def _nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: Any, **__: Any) -> None:
        raise AssertionError("the value is refused before anything is fetched or loaded")

    monkeypatch.chdir(ROOT)
    # All are imported first: one that is imported while a name is replaced would keep what replaces it.
    modules = [
        import_module(found.name) for found in walk_packages(lce.__path__, "lce.") if "__main__" not in found.name
    ]
    for path in BEGINNING:
        owner, _, name = path.rpartition(".")
        original = getattr(import_module(owner), name)
        for module in modules:
            if getattr(module, name, None) is original:
                monkeypatch.setattr(module, name, begun)


TRAINING = [
    *[("--train.steps", value, "a positive number") for value in ("0", "-1")],
    *[("--train.batch_size", value, "a positive number") for value in ("0", "-1")],
    ("--train.checkpoint_every", "0", "a positive number"),
    ("--train.validate_every", "0", "a positive number"),
    ("--train.workers", "-1", "0 or more"),
    *[("--train.learning_rate", value, "0 or more") for value in ("-1", ".inf")],
    ("--train.learning_rate", ".nan", "a number|0 or more"),
    *[("--train.warmup_steps", value, "0 to train.steps (500)") for value in ("-1", "501")],
    *[("--train.weight_decay", value, "0 or more") for value in ("-0.1", ".inf")],
    ("--train.max_length", "2", "at least 3 tokens"),
    *[("--train.term_probability", value, "a probability between 0 and 1") for value in ("0.0", "1.0", "-1")],
    *[("--train.mask_probability", value, "a probability between 0 and 1") for value in ("0.0", "1.0", "2")],
    ("--train.freeze", "['(']", "no regular expression"),
    ("--data.min_words", "121", "at least data.min_words (121)|data.max_words"),
    ("--data.min_words", "0", "a positive number"),
    ("--data.processes", "0", "a positive number"),
    *[("--data.evaluation_fraction", value, "a share between 0 and 1") for value in ("0.0", "1.0")],
    *[("--data.neutral_ratio", value, "0 or more") for value in ("-1", ".inf")],
    ("--data.corpus.limit", "0", "a positive number of documents"),
    ("--data.corpus.source", "files", "no file is named"),
    ("--trainer.devices", "0", "a positive number"),
    ("--trainer.devices", "3", "a launcher starts"),
    ("--trainer.accumulate_grad_batches", "0", "a positive number"),
    ("--trainer.num_nodes", "0", "a positive number"),
    ("--trainer.log_every_n_steps", "0", "a positive number"),
    ("--trainer.gradient_clip_val", "-1", "0 or more"),
    ("--trainer.precision", "8", "'bf16-mixed'"),
]
COMMANDS = {
    "train": [
        *TRAINING,
        *[("--sparsity", value, "a share from 0") for value in ("-0.1", "1.0")],
        ("--sparsities", "[0.4, 0.3]", "rising shares between 0 and 1"),
        ("--seed", "-1", "0 or more"),
        ("--trainer.accelerator", "nonsense", "invalid accelerator name"),
        ("--trainer.strategy", "nonsense", "invalid strategy name"),
    ],
    "pretrain": [
        *[each for each in TRAINING if each[0] not in ("--train.warmup_steps",)],
        *[("--layers", value, "a positive number") for value in ("0", "-1")],
        ("--minimum_count", "-1", "0 or more"),
        ("--dropout", "1.0", "a share from 0"),
        ("--seed", "-1", "0 or more"),
        ("--trainer.strategy", "nonsense", "invalid strategy name"),
    ],
    "sweep": [
        *TRAINING,
        ("--seeds", "[0, -1]", "0 or more"),
        ("--share", "0.0", "a share of the weights in (0, 1]"),
        ("--gpus_per_task", "-1", "0 or more"),
        ("--cpus_per_task", "0", "a positive number"),
        ("--evaluation.limit", "0", "a positive number of items"),
        ("--downstream.epochs", "0", "a positive number"),
    ],
    "edit": [
        ("--random_baselines", "-1", "0 or more"),
        ("--share", "1.5", "a share of the weights in (0, 1]"),
        ("--count", "0", "a positive number of weights"),
        ("--seed", "-1", "0 or more"),
        ("--alpha", ".inf", "finite numbers"),
        ("--alpha", "0", "changes nothing"),
        ("--evaluation.limit", "0", "a positive number of items"),
        ("--evaluation.tokens_per_batch", "0", "a positive number"),
        ("--train.max_length", "2", "at least 3 tokens"),
        ("--trainer.accelerator", "nonsense", "invalid accelerator name"),
    ],
    "data": [each for each in TRAINING if each[0].startswith("--data")],
}


@pytest.mark.parametrize(
    ("command", "option", "value", "message"),
    [(command, *case) for command, cases in COMMANDS.items() for case in cases],
)
def test_a_bad_value_is_refused_before_anything_is_begun(
    command: str, option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, f"{option}={value}"]) == 2
    error = capsys.readouterr().err
    [line] = [line for line in error.splitlines() if line.startswith("lce: error:")]
    assert any(part in line for part in message.split("|"))
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "limit: expected a positive number of items, got 0"),
        (["--trainer.accelerator", "nonsense"], "invalid accelerator name"),
        (["--trainer.precision", "nonsense"], "trainer.precision: expected one of"),
    ],
)
def test_a_model_is_not_loaded_for_a_bad_evaluation(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "no/model", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "pretrain", "edit", "evaluate no/model"])
def test_a_gpu_that_is_not_there_gets_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert main([*command.split(), "--trainer.accelerator", "gpu"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("lce: error: trainer: accelerator gpu")


def test_the_devices_of_a_training_do_not_keep_one_from_editing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "four.yaml"
    config.write_text("trainer: {accelerator: cpu, devices: 4, strategy: ddp}\n", encoding="utf-8")
    assert main(["edit", "--config", str(config), "--experiment", str(tmp_path)]) == 2
    assert "no such subnetwork" in capsys.readouterr().err
    assert main(["train", "--config", str(config)]) == 2
    assert "a launcher starts" in capsys.readouterr().err


def test_the_defaults_are_right() -> None:
    check_settings(Settings())
    check_pretraining(PretrainSettings())
    check_study(StudySettings())
    check_localization(EditSettings())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edits": [EditBlock(alpha=[float("nan")])]}, r"edits\[0\].alpha: expected finite numbers"),
        ({"edits": [EditBlock(share=[0.1, 1.5])]}, r"edits\[0\].share: expected a share"),
        ({"edits": [EditBlock(count=["mask", 0])]}, r"edits\[0\].count: expected a positive number"),
        ({"edits": [EditBlock(share=[])]}, r"edits\[0\]: gives no size of the value-based selections"),
        ({"edits": [EditBlock(strategies=["interpolation"])]}, r"edits\[0\].alpha: interpolation takes α from 0 to 1"),
        ({"edits": [EditBlock(last_layers=[0])]}, r"edits\[0\].last_layers: expected a positive number"),
        ({"edits": [], "sparsities": [0.3, 0.2]}, "sparsities: expected rising shares"),
        ({"downstream": DownstreamSettings(batch_size=0)}, "downstream.batch_size: expected a positive number"),
        ({"downstream": DownstreamSettings(learning_rate=-1)}, "downstream.learning_rate: expected 0 or more"),
        ({"downstream": DownstreamSettings(max_length=2)}, "downstream.max_length: expected at least 3"),
    ],
)
def test_a_study_is_checked_too(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LceError, match=message):
        check_study(replace(StudySettings(), **changed))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EditSettings(share=0), "share: expected a share"),
        (EditSettings(share=1.5), "share: expected a share"),
        (EditSettings(count=0), "count: expected a positive number"),
        (EditSettings(sparsity=1.0), "sparsity: expected a share"),
        (EditSettings(tensors=["("]), "tensors: '\\(' is no regular expression"),
    ],
)
def test_a_localization_is_checked_too(settings: EditSettings, message: str) -> None:
    with pytest.raises(LceError, match=message):
        check_localization(settings)
