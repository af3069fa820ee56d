"""Training sparse autoencoders: they learn, they are what SAELens reads, and nothing but the settings matters."""

from __future__ import annotations

import json
import signal
from math import sqrt
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow.parquet as pq
import pytest
import torch
from autoencoder_trainings import STEPS, assert_same, configuration, saved, settings, trained, weights
from killing import Moment, check_ending, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.functional import normalize

from lce.cli import main
from lce.data.prepare import prepare_sentences
from lce.foundations.errors import LceError
from lce.models.autoencoder_files import SETTINGS, load_autoencoder
from lce.models.loading import load_language_model
from lce.training.autoencoder import module as of_module
from lce.training.autoencoder import states as of_states
from lce.training.autoencoder import train as of_train
from lce.training.autoencoder.module import AutoencoderModule

ARCHITECTURES = ("batchtopk", "topk", "standard")
TAGS = [f"train/{name}" for name in ("loss", "unexplained_variance", "l0", "dead")]
TAGS += [f"validation/{name}" for name in ("unexplained_variance", "l0", "loss", "loss_spliced")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def topk(made: Path) -> Path:
    """A finished training."""
    return trained(made, made / "topk", architecture="topk")


def held_out(made: Path, kind: str, layer: int) -> torch.Tensor:
    """The states of held-out sentences, each read alone, but those of first tokens."""
    model, tokenizer = load_language_model(made / kind)
    table = pq.read_table(prepare_sentences(settings(made, made).data)).to_pylist()
    found: list[torch.Tensor] = []
    layers = model.bert.encoder.layer if kind == "bert" else model.model.layers
    hook = layers[layer].register_forward_hook(lambda *parts: found.append(parts[2]))
    with torch.no_grad():
        for row in table:
            if row["evaluation"]:
                model(**tokenizer(row["text"], truncation=True, max_length=32, return_tensors="pt"))
    hook.remove()
    return torch.cat([(one if isinstance(one, torch.Tensor) else one[0])[0, 1:] for one in found])


@pytest.mark.parametrize(("kind", "layer"), [("llama", 0), ("bert", 1)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_learned(architecture: str, kind: str, layer: int, made: Path, tmp_path: Path) -> None:
    """BERT's is at the last layer, where only the positions that are asked for go on."""
    site = f"layers.{layer}"
    folder = trained(made, tmp_path / "run", model=kind, site=site, architecture=architecture, expansion=6, l1=0.5)
    events = EventAccumulator(str(tmp_path / "run/logs"))
    events.Reload()
    assert set(TAGS) <= set(events.Tags()["scalars"])
    course = [event.value for event in events.Scalars("validation/unexplained_variance")]
    assert course[-1] < course[0]
    about = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    scores = about["metadata"]["lce_scores"]
    assert scores == json.loads((tmp_path / "run/record.json").read_text(encoding="utf-8"))
    assert scores["unexplained_variance"] == pytest.approx(course[-1], rel=1e-5)
    ours, states = load_autoencoder(folder), held_out(made, kind, layer)
    if kind == "llama":  # a masked model is validated on text with masks
        left = (states - ours.reconstruct(states)).square().sum() / (states - states.mean(0)).square().sum()
        assert scores["unexplained_variance"] == pytest.approx(float(left), rel=1e-3)
        assert scores["l0"] == pytest.approx(float((ours.encode(states) > 0).sum(1).float().mean()), rel=1e-3)
    assert scores["unexplained_variance"] < 0.6
    assert scores["loss_spliced"] != scores["loss"]
    lengths = ours.decoder.norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths), atol=0, rtol=1e-5)
    number = (ours.encode(states) > 0).sum(1).float()
    assert {"topk": number.max() <= 4, "batchtopk": 2 < number.mean() < 8, "standard": number.mean() > 0}[architecture]
    assert (ours.size, ours.width) == (96, 16)
    assert ours.architecture == {"batchtopk": "jumprelu"}.get(architecture, architecture)
    where = {"llama": "layers.0", "bert": "encoder.layer.1"}[kind]
    assert (about["metadata"]["lce_site"], about["metadata"]["model_name"]) == (where, kind)
    assert about["metadata"]["hook_name"] == f"blocks.{layer}.hook_resid_post"
    lens = pytest.importorskip("sae_lens")
    with torch.no_grad():
        theirs = lens.SAE.load_from_disk(folder).encode(states)
    torch.testing.assert_close(ours.encode(states), theirs, atol=1e-5, rtol=1e-5)


def test_what_is_saved_does_with_states_what_was_trained_on_scaled_ones(made: Path) -> None:
    module = AutoencoderModule(settings(made, made, architecture="standard"), torch.randn(16), 0.3)
    with torch.no_grad():
        for parameter in (module.encoder, module.encoder_bias, module.decoder_bias):
            parameter.add_(0.1 * torch.randn_like(parameter))
    states, ours = 5 * torch.randn(20, 16), module.autoencoder()
    x = (states - module.centre) * 0.3
    z = torch.relu((x - module.decoder_bias) @ module.encoder.T + module.encoder_bias)
    torch.testing.assert_close(ours.encode(states), z, atol=1e-5, rtol=1e-5)
    again = (z @ module.decoder + module.decoder_bias) / 0.3 + module.centre
    torch.testing.assert_close(ours.reconstruct(states), again, atol=1e-4, rtol=1e-5)


def test_only_the_seed_makes_a_difference(made: Path, topk: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Where the states lie makes none: those on the disk are gone at the end."""
    assert_same(trained(made, tmp_path / "again", architecture="topk"), topk)
    written: list[Path] = []
    original = of_states.write_file
    monkeypatch.setattr(of_states, "write_file", lambda path, *rest: (written.append(path), original(path, *rest)))
    assert_same(trained(made, tmp_path / "disk", architecture="topk", memory=0.0), topk)
    assert len(written) > 2
    assert not any(path.exists() for path in written)
    other = weights(trained(made, tmp_path / "other", architecture="topk", seed=1))
    assert not torch.equal(other["W_enc"], weights(topk)["W_enc"])


@pytest.mark.parametrize(("architecture", "memory"), [("batchtopk", 0.0), ("topk", 2.0)])
def test_a_killed_training_resumes(
    architecture: str, memory: float, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has the weights of one that was never stopped."""
    options = {"architecture": architecture, "memory": memory}
    whole = trained(made, tmp_path / "whole", **options)
    asked = settings(made, tmp_path / "killed", **options)
    command = configuration(asked, tmp_path / "killed.yaml")
    check_ending(run(command, tmp_path / "said", Moment("autoencoder", 34), signal.SIGKILL), signal.SIGKILL)
    assert (tmp_path / "killed/checkpoints/last.ckpt").exists()
    assert not (tmp_path / "killed/autoencoder").exists()
    assert bool(list((tmp_path / "killed").glob("states/*.safetensors"))) == (memory == 0)
    steps: list[int] = []
    original = AutoencoderModule.training_step
    monkeypatch.setattr(AutoencoderModule, "training_step", lambda *a: (steps.append(1), original(*a))[1])
    assert main(command) == 0
    assert len(steps) == STEPS - 20
    assert_same(tmp_path / "killed/autoencoder", whole)
    assert not list((tmp_path / "killed").glob("states/*"))


def test_a_finished_one_is_not_trained_again(made: Path, topk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(of_train, "_train", None)
        assert trained(made, made / "topk", architecture="topk") == topk
    with pytest.raises(LceError, match=r"topk: holds results of other settings \(seed was 0, now 1\)"):
        trained(made, made / "topk", architecture="topk", seed=1)
    with pytest.raises(LceError, match=r"holds results of other settings \(site was 'layers.0', now 'layers.1'\)"):
        trained(made, made / "topk", architecture="topk", site="layers.1")
    with pytest.raises(LceError, match=r"autoencoder: exists already; name a new folder or remove it first"):
        trained(made, made / "another", output=str(topk))
    assert not (made / "another/checkpoints").exists(), "it is said before the training"


def test_states_of_another_training_are_not_taken_for_its_own(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is killed before its first checkpoint has left nothing else."""
    asked = settings(made, tmp_path / "run", memory=0.0)
    command = configuration(asked, tmp_path / "run.yaml")
    check_ending(run(command, tmp_path / "said", Moment("autoencoder", 1), signal.SIGKILL), signal.SIGKILL)
    assert list((tmp_path / "run/states").iterdir())
    assert main([*command, "--site", "layers.1"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "holds results of other settings (site was 'layers.0', now 'layers.1')" in line


def test_one_that_ends_before_it_is_written_is_written_by_the_next(
    made: Path, topk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(of_train, "save_autoencoder", None)
        with pytest.raises(TypeError):
            trained(made, tmp_path / "run", architecture="topk")
    monkeypatch.setattr(AutoencoderModule, "training_step", lambda *_: 1 / 0)
    assert_same(trained(made, tmp_path / "run", architecture="topk"), topk)


@pytest.mark.parametrize(("steps", "message"), [(10, "the loss is nan after step"), (1, "on held-out text is nan")])
def test_a_training_that_diverges_leaves_its_folder_free(
    steps: int, message: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings(made, tmp_path / "run", learning_rate=1e30, steps=steps, checkpoint_every=1, memory=0.0)
    assert main(configuration(asked, tmp_path / "run.yaml")) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lce: error:")]
    assert "the training diverged: " in line
    assert message in line
    assert not (tmp_path / "run/autoencoder").exists()
    assert trained(made, tmp_path / "run", steps=5, memory=0.0).exists()


@pytest.mark.parametrize("is_revived", [True, False])
def test_dead_features_are_counted_and_learn_from_what_is_left(
    is_revived: bool, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the features begin where no state reaches them."""
    if not is_revived:
        monkeypatch.setattr(of_module, "AUXILIARY", 0.0)
    asked = settings(made, made, architecture="topk", steps=120, expansion=2, k=2, learning_rate=2e-2)
    torch.manual_seed(0)
    module = AutoencoderModule(asked, torch.zeros(16), 1.0)
    with torch.no_grad():
        module.encoder_bias[:16] = -3.0
    directions = normalize(torch.randn(64, 16), dim=1)
    batches = [directions[torch.randint(64, (64, 3))].sum(1) * sqrt(16 / 3) for _ in range(120)]
    before = module.encoder.detach().clone()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(max_steps=120, accelerator="cpu", logger=False, **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    dead = float(trainer.callback_metrics["train/dead"])
    assert (dead < 0.2) if is_revived else (dead >= 0.5)
    assert torch.equal(module.encoder[:16], before[:16]) != is_revived
    torch.testing.assert_close(module.decoder.norm(dim=1), torch.ones(32), atol=1e-5, rtol=0)
