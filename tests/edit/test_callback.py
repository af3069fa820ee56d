from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASE, own_sentences
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lce.config import EvaluationSettings
from lce.data.encoding import encode
from lce.data.masking import MaskingCollator, MaskingProbabilities
from lce.data.module import TextModule
from lce.edit.callback import EditCallback
from lce.edit.protocol import Edit
from lce.metrics.suite import BiasSuite, Scores, all_scores
from lce.models.loading import load_language_model
from lce.patch import Patch
from lce.training.module import MaskedLanguageModel

NAME = "bert.encoder.layer.3.attention.output.dense.weight"


class Shift:
    """An edit that adds one half to some weights of one parameter."""

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        parameter = model.get_parameter(NAME).detach()
        before = parameter.clone()
        parameter.view(-1)[:1000] += 0.5
        try:
            yield
        finally:
            parameter.copy_(before)

    def patch(self, path: str | Path, provenance: Mapping[str, Any] | None = None) -> Patch:
        raise NotImplementedError


EDIT: Edit = Shift()


@pytest.fixture(scope="module")
def bundled() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load_language_model(BASE)


@pytest.fixture
def data(bundled: tuple[PreTrainedModel, PreTrainedTokenizerBase]) -> TextModule:
    texts = own_sentences()[::10]
    encoded = encode(texts, texts, bundled[1], None, max_length=32)
    asked = MaskingCollator(encoded, bundled[1], MaskingProbabilities(0.15, 0.15), seed=0)
    return TextModule(asked, asked, batch_size=16, seed=0, steps=1)


def validate(callbacks: list[EditCallback], module: MaskedLanguageModel, data: TextModule, logger: Any) -> float:
    """The perplexity that Lightning's own validation measures."""
    quiet = {"enable_progress_bar": False, "use_distributed_sampler": False}
    trainer = Trainer(accelerator="cpu", logger=logger, callbacks=callbacks, **quiet)
    trainer.validate(module, data, verbose=False)
    return float(trainer.callback_metrics["validation/perplexity"])


def test_applies_logs_and_restores(
    bundled: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    data: TextModule,
    benchmarks: Path,
    downloads: Path,
    tmp_path: Path,
) -> None:
    model, tokenizer = bundled
    suite = BiasSuite(EvaluationSettings(limit=3), tokenizer, downloads)
    measured: list[Scores] = []

    def measure(model: PreTrainedModel) -> Scores:
        measured.append(all_scores(suite.measure(model)))
        return measured[-1]

    before = {name: p.clone() for name, p in model.named_parameters()}
    plain = validate([], MaskedLanguageModel(model), data, False)
    unedited = all_scores(suite.measure(model))
    logger = TensorBoardLogger(tmp_path, name=None, version="logs")
    for alpha in (-0.5, 2.0):
        callback = EditCallback(EDIT, measure, alpha)
        assert validate([callback], MaskedLanguageModel(model), data, logger) > plain
        assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
        assert measured[-1]["weat8"]["value"] != unedited["weat8"]["value"]
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert {f"edited/{name}" for name in unedited} <= set(events.Tags()["scalars"])
    points = {event.step: event.value for event in events.Scalars("edited/weat8")}
    assert set(points) == {-50, 200}
    assert points[200] == pytest.approx(measured[-1]["weat8"]["value"])


def test_restores_when_the_validation_fails(
    bundled: tuple[PreTrainedModel, PreTrainedTokenizerBase], data: TextModule
) -> None:
    model = bundled[0]
    before = model.get_parameter(NAME).clone()

    class Failing(MaskedLanguageModel):
        def validation_step(self, batch: object, batch_idx: int) -> None:
            assert not torch.equal(self.model.get_parameter(NAME), before)
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        validate([EditCallback(EDIT)], Failing(model), data, False)
    assert torch.equal(model.get_parameter(NAME), before)
