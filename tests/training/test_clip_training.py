"""Training a CLIP: it learns, nothing but the settings matters, and plain transformers loads what is written."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from clip_trainings import STEPS, assert_same, configuration, settings, trained, weights
from clips import embeddings, random_pixels
from painted import SHAPES, paint, painted
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from lce.cli import main
from lce.data.pictures.prompts import filled
from lce.foundations.errors import LceError
from lce.models.clip import load_clip
from lce.training.clip import train as of_train
from lce.training.clip.batches import in_memory, normalised
from lce.training.clip.module import ClipModule


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("training") / "pictures", 5)


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """A finished training."""
    return trained(pictures, tmp_path_factory.mktemp("training") / "whole")


def test_what_is_written_besides_the_model(whole):
    folder = whole.parent
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    assert set(record) == {"accuracy", "lean", "held_out_pictures"}
    assert record["held_out_pictures"] == 2 * 12
    assert 0 <= record["accuracy"] <= 1
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    assert {"train/loss", "validation/accuracy", "validation/lean"} <= set(events.Tags()["scalars"])
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["train"]["steps"] == STEPS


def test_only_the_seed_makes_a_difference(pictures, whole, tmp_path):
    assert_same(trained(pictures, tmp_path / "again"), whole)
    moved = trained(pictures, tmp_path / "moved", output=str(tmp_path / "model"))
    assert moved == tmp_path / "model"
    assert_same(moved, whole)
    other = weights(trained(pictures, tmp_path / "other", seed=1))
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(other[name], weights(whole)[name])


@pytest.mark.parametrize("done", [2, 7])
def test_one_that_is_stopped_resumes(pictures, whole, tmp_path, monkeypatch, done):
    """From its last checkpoint, if there is one, and has the weights of one that was never stopped."""
    steps = []
    original = ClipModule.training_step

    def stopping(self, *rest):
        steps.append(self.trainer.global_step)
        return original(self, *rest) if len(steps) <= done else 1 / 0

    with monkeypatch.context() as patch:
        patch.setattr(ClipModule, "training_step", stopping)
        with pytest.raises(ZeroDivisionError):
            trained(pictures, tmp_path / "stopped")
    assert (tmp_path / "stopped/checkpoints/last.ckpt").exists() == (done > 4)
    assert not (tmp_path / "stopped/model").exists()
    steps.clear()
    monkeypatch.setattr(ClipModule, "training_step", lambda self, *rest: (steps.append(1), original(self, *rest))[1])
    assert_same(trained(pictures, tmp_path / "stopped"), whole)
    assert len(steps) == STEPS - (4 if done > 4 else 0)


def test_the_command_prints_the_folder_last(pictures, tmp_path, capsys):
    command = configuration(settings(pictures, tmp_path / "run", steps=2), tmp_path / "run.yaml")
    for _ in range(2):
        assert main(command) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run/model")
    assert main([*command, "--train.steps", "3"]) == 2
    assert "holds results of other settings (train" in capsys.readouterr().err


def test_processes_of_a_launcher_are_refused(pictures, tmp_path, capsys, monkeypatch):
    command = configuration(settings(pictures, tmp_path / "run"), tmp_path / "run.yaml")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 2
    assert "WORLD_SIZE: expected one process: a CLIP is trained by one, got 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_finished_one_is_not_trained_again(pictures, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(of_train, "_train", None)
        assert trained(pictures, whole.parent) == whole
    with pytest.raises(LceError, match=r"whole: holds results of other settings \(seed was 0, now 1\)"):
        trained(pictures, whole.parent, seed=1)
    with pytest.raises(LceError, match=r"\(shares was {'circle': 0.9, 'square': 0.2}, now {}\)"):
        trained(pictures, whole.parent, shares={})
    with pytest.raises(LceError, match=r"model: exists already; name a new folder or remove it first"):
        trained(pictures, tmp_path / "another", output=str(whole))
    assert not (tmp_path / "another/checkpoints").exists(), "it is said before the training"


def test_one_that_ends_before_it_is_written_is_written_by_the_next(pictures, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(of_train, "save", None)
        with pytest.raises(TypeError):
            trained(pictures, tmp_path / "run")
    monkeypatch.setattr(ClipModule, "training_step", lambda *_: 1 / 0)
    assert_same(trained(pictures, tmp_path / "run"), whole)


def test_one_that_fails_before_its_first_checkpoint_leaves_its_folder_to_itself(pictures, tmp_path, monkeypatch):
    """The same command begins anew; one with other settings may, too, while there is no result."""
    with monkeypatch.context() as patch:
        patch.setattr(ClipModule, "training_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained(pictures, tmp_path / "run")
    assert trained(pictures, tmp_path / "run", steps=2, seed=5).exists()


def test_a_training_that_diverges_leaves_its_folder_free(pictures, tmp_path, capsys):
    asked = settings(pictures, tmp_path / "run", learning_rate=1e30, warmup_steps=0, checkpoint_every=1)
    assert main(configuration(asked, tmp_path / "run.yaml")) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lce: error:")]
    assert "the training diverged: " in line
    assert not (tmp_path / "run/model").exists()
    assert trained(pictures, tmp_path / "run", steps=2).exists()


def test_shares_of_what_there_are_no_pictures_of_are_refused(pictures, tmp_path, capsys):
    asked = settings(pictures, tmp_path / "run", shares={"hexagon": 0.5})
    assert main(configuration(asked, tmp_path / "run.yaml")) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lce: error:")]
    assert "shares: there is no picture of 'hexagon'; the occupations are circle, square, triangle" in line
    assert not (tmp_path / "run/checkpoints").exists()


def test_plain_transformers_loads_what_was_trained(pictures, tmp_path, monkeypatch):
    """In half precision: the embeddings are those of the model in training to that precision."""
    kept = {}
    original = of_train.save

    def keeping(model, tokenizer, *rest):
        pixels = random_pixels(6)
        with torch.no_grad():
            one = tokenizer(["a circle", "an old square"], padding=True, return_tensors="pt")
            kept["texts"] = F.normalize(model.get_text_features(**one).pooler_output, dim=1)
        kept["pictures"] = embeddings(model, pixels)
        original(model, tokenizer, *rest)

    monkeypatch.setattr(of_train, "save", keeping)
    folder = trained(pictures, tmp_path / "run")
    stored = weights(folder)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    model, tokenizer = AutoModel.from_pretrained(folder).float(), AutoTokenizer.from_pretrained(folder)
    torch.testing.assert_close(embeddings(model, random_pixels(6)), kept["pictures"], atol=5e-3, rtol=0)
    clip = load_clip(folder, "cpu")
    found = clip.text_embeddings(["a circle", "an old square"])
    torch.testing.assert_close(found, kept["texts"], atol=5e-3, rtol=0)
    assert tokenizer.model_max_length == 24
    assert tokenizer.unk_token_id not in tokenizer([filled("a drawing of a {}", shape) for shape in SHAPES])
    torch.testing.assert_close(embeddings(clip.model, random_pixels(6)), embeddings(model, random_pixels(6)))


def test_the_image_processor_does_what_the_training_did(whole, pictures):
    processor = AutoImageProcessor.from_pretrained(whole)
    picture = painted("circle", "woman", "light", 0, 24)
    found = processor(images=[picture], return_tensors="pt")["pixel_values"]
    picture.save(whole.parent / "exact.png")
    wanted = normalised(in_memory(whole.parent, [{"file": "exact.png"}], 24)[:, :3].float() / 255)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    larger = processor(images=[painted("circle", "woman", "light", 0, 48)], return_tensors="pt")["pixel_values"]
    assert larger.shape == (1, 3, 24, 24)
    assert float(larger.max()) == pytest.approx(1)
