"""`lce train-sae`: its help, what it prints, and what it refuses before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoencoder_trainings import configuration, saved, settings

from lce.cli import main
from lce.models.autoencoder_files import load_autoencoder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def test_the_help_has_all_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train-sae", "--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    for name in ("--site", "--architecture", "--expansion", "--train.steps", "--data.corpus.source", "--half"):
        assert name in printed


def test_the_folder_is_the_last_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = settings(made, tmp_path / "run", site="model.layers.1.mlp", steps=5, architecture="topk")
    command = configuration(asked, tmp_path / "sae.yaml")
    folder = tmp_path / "sae"
    for _ in range(2):
        assert main([*command, "--half", "true", "--output", str(folder)]) == 0
        first, *others, last = capsys.readouterr().out.splitlines()
        assert first == "topk, 128 features of 16 values, at layers.1.mlp of llama"
        assert len(others) == 4
        assert last == str(folder)
    found = load_autoencoder(folder)
    assert found.site == "layers.1.mlp"
    assert (folder / "sae_weights.safetensors").stat().st_size < 3 * found.encoder.numel() * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "0"], "k: expected a positive number of features, got 0"),
        (["--expansion", "0"], "expansion: expected a positive number, got 0"),
        (["--train.chunk", "63"], "train.chunk: expected at least train.batch_size (64), got 63"),
        (["--train.steps", "0"], "train.steps: expected a positive number, got 0"),
        (["--train.memory", "-1"], "train.memory: expected 0 or more, got -1"),
        (["--trainer.accumulate_grad_batches", "2"], "trainer.accumulate_grad_batches: expected 1: a step takes"),
        (["--trainer.precision", "bf16-true"], "trainer.precision: expected 32-true, bf16-mixed or 16-mixed, got bf16"),
        (["--architecture", "gated"], "architecture: expected one of 'batchtopk', 'topk', 'standard'"),
        (["--site", "nowhere"], "site nowhere: the model has no such module; expected layers.N"),
        (["--site", "blocks.2.hook_resid_post"], "site layers.2: the model has 2 layers"),
        (["--train.tokens", "63"], "data: the text has fewer states than the 64 of a step; give more of it"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: list[str], message: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = configuration(settings(made, tmp_path / "run"), tmp_path / "sae.yaml")
    assert main([*command, *options]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lce: error:")]
    assert message in line
    assert not (tmp_path / "run/autoencoder").exists()


@pytest.mark.parametrize(
    ("number", "share", "message"),
    [(2, 0.001, "data: no sentence is held out; give more text"), (1, 0.999, "data: every sentence is held out; give")],
)
def test_a_text_of_which_one_side_is_empty(
    number: int, share: float, message: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (made / "text.txt").read_text(encoding="utf-8").splitlines()[:number]
    (tmp_path / "short.txt").write_text("\n".join(lines), encoding="utf-8")
    asked = settings(made, tmp_path / "run")
    asked.data.folder, asked.data.corpus.files = str(tmp_path / "data"), [str(tmp_path / "short.txt")]
    asked.data.evaluation_fraction = share
    assert main(configuration(asked, tmp_path / "sae.yaml")) == 2
    assert message in capsys.readouterr().err
