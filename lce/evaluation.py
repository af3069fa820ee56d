"""Measuring models: the bias benchmarks, and perplexity on the held-out sentences, in one evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import Trainer

from lce.callbacks import EditCallback
from lce.checkpoint import fingerprint
from lce.config import Settings
from lce.data.module import encoded_examples, evaluation_loader
from lce.edits import Changes
from lce.files import read_json, write_json
from lce.metrics.suite import BiasSuite, Scores
from lce.models import MaskedLanguageModel
from lce.paths import SCORES
from lce.seeds import derive
from lce.training import numerics

if TYPE_CHECKING:
    from lightning.pytorch.loggers import TensorBoardLogger
    from transformers import PreTrainedModel

EVALUATION_BATCH = 32
"""Held-out sentences per batch; sorted by length, they hold little padding."""


class Evaluator:
    """Scores models that share one tokenizer, all on the same sentences with the same masks."""

    def __init__(self, settings: Settings, trainer_options: Mapping[str, Any], tokenizer: Any) -> None:
        texts = encoded_examples(settings.data, None, True, tokenizer, settings.train.max_length)
        self.sentences = evaluation_loader(texts, tokenizer, EVALUATION_BATCH, settings.train.mask_probability)
        self.suite = BiasSuite(settings.evaluation, tokenizer, settings.data.downloads)
        self.options = dict(trainer_options) | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
        self.kept_scores = Path(settings.experiment) / SCORES
        self.measure = [
            version("lce"),
            asdict(settings.evaluation),
            self.suite.weat.sets,
            fingerprint({"ids": texts.ids, "offsets": texts.offsets}),
            settings.train.mask_probability,
            numerics(trainer_options),
        ]

    def __call__(
        self,
        model: PreTrainedModel,
        changes: Changes | None = None,
        logger: TensorBoardLogger | None = None,
        **options: Any,
    ) -> Scores:
        """Scores of ``model`` with ``changes`` applied for the while; the ``options`` are those of `EditCallback`."""
        callback = EditCallback(changes, self.suite, **options)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(
            **(self.options | quiet), logger=logger or False, callbacks=[callback], use_distributed_sampler=False
        )
        trainer.validate(MaskedLanguageModel(model), self.sentences, verbose=False)
        return callback.scores

    def unedited(self, model: PreTrainedModel) -> Scores:
        """As calling it, but the scores of the same weights by the same measure are kept in the run and read again."""
        key = derive(fingerprint(dict(model.named_parameters())), str(self.measure))
        path = self.kept_scores / f"{key:016x}.json"
        if not path.exists():
            write_json(path, self(model))
        return dict(read_json(path))
