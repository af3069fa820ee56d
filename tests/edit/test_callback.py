from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import BASE, own_sentences
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lce.config import EvaluationSettings
from lce.data.encoding import encode
from lce.data.module import MaskedTextModule
from lce.edit.callback import EditCallback
from lce.metrics.suite import BiasSuite
from lce.models.loading import load_masked_lm
from lce.storage.changes import Change
from lce.training.module import MaskedLanguageModel

NAME = "bert.encoder.layer.3.attention.output.dense.weight"


@pytest.fixture(scope="module")
def bundled() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_masked_lm(BASE)


@pytest.fixture
def data(bundled: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> MaskedTextModule:
    texts = own_sentences()[::10]
    encoded = encode(texts, texts, bundled[1], None, max_length=32)
    return MaskedTextModule(encoded, encoded, bundled[1], 16, 0, 1, 0.3, 0.15)


@pytest.fixture(scope="module")
def suite(bundled: tuple[PreTrainedModel, PreTrainedTokenizerBase], benchmarks: Path, downloads: Path) -> BiasSuite:
    """The real benchmarks, the first three items of each."""
    return BiasSuite(EvaluationSettings(limit=3), bundled[1], downloads)


def change(model: PreTrainedModel) -> dict[str, Change]:
    old = model.get_parameter(NAME).detach().flatten()[:1000].clone()
    return {NAME: Change(torch.arange(1000), old + 0.5, tuple(model.get_parameter(NAME).shape), old)}


def trainer(callback: EditCallback, logger: TensorBoardLogger | bool = False) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=logger, callbacks=[callback], enable_progress_bar=False, use_distributed_sampler=False
    )


def test_applies_logs_and_restores(
    bundled: tuple[PreTrainedModel, PreTrainedTokenizerBase], data: MaskedTextModule, suite: BiasSuite, tmp_path: Path
) -> None:
    model = bundled[0]
    before = {name: p.clone() for name, p in model.named_parameters()}
    plain = EditCallback(None, suite)
    trainer(plain).validate(MaskedLanguageModel(model), data, verbose=False)
    logger = TensorBoardLogger(tmp_path, name=None, version="logs")
    for alpha in (-0.5, 2.0):
        edited = EditCallback(change(model), suite, alpha, "edited")
        trainer(edited, logger).validate(MaskedLanguageModel(model), data, verbose=False)
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
        assert edited.scores["perplexity"]["value"] > plain.scores["perplexity"]["value"]
        assert edited.scores["weat8"]["value"] != plain.scores["weat8"]["value"]
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert {f"edited/{name}" for name in edited.scores} <= set(events.Tags()["scalars"])
    points = {event.step: event.value for event in events.Scalars("edited/perplexity")}
    assert set(points) == {-50, 200}
    assert points[200] == pytest.approx(edited.scores["perplexity"]["value"])


def test_restores_when_the_evaluation_fails(
    bundled: tuple[PreTrainedModel, PreTrainedTokenizerBase], data: MaskedTextModule, suite: BiasSuite
) -> None:
    model = bundled[0]
    before = model.get_parameter(NAME).clone()

    class Failing(MaskedLanguageModel):
        def validation_step(self, batch: object, batch_idx: int) -> None:
            assert not torch.equal(self.model.get_parameter(NAME), before)
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        trainer(EditCallback(change(model), suite)).validate(Failing(model), data, verbose=False)
    assert torch.equal(model.get_parameter(NAME), before)
