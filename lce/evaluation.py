"""Measuring models: the bias benchmarks and perplexity in one evaluation, alone or one model against another."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from lightning import Trainer

from lce.callbacks import EditCallback
from lce.checkpoint import fingerprint
from lce.config import Settings
from lce.data.encoding import EncodedTexts, encode
from lce.data.module import evaluation_loader, read_examples, read_text
from lce.data.prepare import prepare_examples
from lce.edits import Changes
from lce.errors import LceError
from lce.files import read_json, replaced_file, save_config, write_json
from lce.metrics.items import ItemMetric, differences
from lce.metrics.suite import BiasSuite, Scores, all_scores
from lce.models import MaskedLanguageModel, load_masked_lm
from lce.paths import CONFIG, EXAMPLES, SCORES
from lce.report import write_report
from lce.seeds import derive
from lce.training import numerics

if TYPE_CHECKING:
    from lightning.pytorch.loggers import TensorBoardLogger
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EVALUATION_BATCH = 32
"""Held-out sentences per batch; sorted by length, they hold little padding."""
LIBRARIES = ("lce", "torch", "transformers", "tokenizers", "lightning", "numpy", "scipy")


class Evaluator:
    """Scores models that share one tokenizer, all on the same sentences with the same masks."""

    def __init__(
        self, settings: Settings, trainer_options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.settings = settings
        texts, self.texts = _sentences(settings, tokenizer)
        self.loader = evaluation_loader(texts, tokenizer, EVALUATION_BATCH, settings.train.mask_probability)
        self.suite = BiasSuite(settings.evaluation, tokenizer, settings.data.downloads, (texts, self.texts))
        self.options = dict(trainer_options) | {"devices": 1, "num_nodes": 1, "strategy": "auto"}
        self.kept_scores = Path(settings.experiment) / SCORES
        self.measure = [
            version("lce"),
            asdict(settings.evaluation),
            self.suite.weat_tests,
            self.suite.data,
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
        return all_scores(self.metrics(model, changes, logger, **options))

    def metrics(
        self,
        model: PreTrainedModel,
        changes: Changes | None = None,
        logger: TensorBoardLogger | None = None,
        **options: Any,
    ) -> list[ItemMetric]:
        """As calling it, but the metrics with all their items."""
        callback = EditCallback(changes, self.suite, **options)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(
            **(self.options | quiet), logger=logger or False, callbacks=[callback], use_distributed_sampler=False
        )
        trainer.validate(MaskedLanguageModel(model), self.loader, verbose=False)
        for metric in callback.metrics:
            if metric.name == "perplexity":
                metric.texts = {"sentence": self.texts}
        return callback.metrics

    def unedited(self, model: PreTrainedModel) -> Scores:
        """As calling it, but the scores of the same weights by the same measure are kept in the run and read again."""
        key = derive(fingerprint(dict(model.named_parameters())), str(self.measure))
        path = self.kept_scores / f"{key:016x}.json"
        if not path.exists():
            write_json(path, self(model))
        return dict(read_json(path))

    def provenance(self) -> dict[str, Any]:
        """Everything that a score has to come with before it can be compared with another one."""
        precision = self.options.get("precision") or "32-true"
        trainer = Trainer(accelerator=self.options.get("accelerator", "auto"), devices=1, logger=False)
        device = trainer.strategy.root_device
        return {
            **asdict(self.settings.evaluation),
            "mask_probability": self.settings.train.mask_probability,
            "sentences": len(self.texts),
            "tokens_per_batch": self.suite.budget.tokens,
            "data_sha256": self.suite.data,
            "odd_items": {name: items for name, items in self.suite.odd.items() if items},
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{device} ({platform.machine()})",
            "dtype": "float32",
            "precision": str(precision),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        }


def _sentences(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> tuple[EncodedTexts, list[str]]:
    """The sentences that perplexity is measured on, encoded and as they are."""
    about = settings.evaluation
    if not any("perplexity" in metric for metric in about.metrics):
        placeholder = [tokenizer.mask_token]  # Lightning validates nothing without a batch
        return encode(placeholder, placeholder, tokenizer, None, max_length=8), placeholder
    if about.text:
        encoded, texts = read_text(about.text, tokenizer)
    else:
        prepare_examples(settings.data)
        texts, _ = read_examples(Path(settings.data.folder) / EXAMPLES, None, True)
        encoded = encode(texts, texts, tokenizer, None, settings.train.max_length)
    if about.limit:
        texts = texts[: about.limit]
        encoded = encode(texts, texts, tokenizer, None, settings.train.max_length)
    return encoded, texts


def run_evaluate(settings: Settings, trainer_options: Mapping[str, Any], name: str, against: str | None) -> Path:
    """Measure the model ``name``, and ``against`` another one if there is one; return the JSON file of the scores.

    In a folder of the same name beside it are report.html, and one parquet file of items per metric.

    Raises:
        LceError: a model or the data cannot be used, or the two models have different vocabularies.
    """
    model, tokenizer = load_masked_lm(name)
    evaluator = Evaluator(settings, trainer_options, tokenizer)
    metrics = evaluator.metrics(model)
    result: dict[str, Any] = {"model": _about(name, model), "scores": all_scores(metrics)}
    others: list[ItemMetric] = []
    if against:
        other, other_tokenizer = load_masked_lm(against)
        if other_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise LceError(f"{name} and {against}: have different vocabularies; token scores cannot be compared")
        others = evaluator.metrics(other)
        pairs = zip(metrics, others, strict=True)
        result |= {
            "against": {**_about(against, other), "weights_differing": differing_weights(model, other)},
            "scores_against": all_scores(others),
            "differences": {name: row for pair in pairs for name, row in differences(*pair).items()},
        }
    result["measured_with"] = evaluator.provenance()
    sides = [result[side] for side in ("model", "against") if side in result]
    title = "-against-".join(f"{_short(side['name'])}-{side['fingerprint'][:6]}" for side in sides)
    path = Path(settings.output or Path(settings.experiment) / "evaluations" / f"{title}.json")
    folder = path.with_suffix("")
    save_config(folder / CONFIG, asdict(settings) | {"trainer": dict(trainer_options)})
    for i, metric in enumerate(metrics):
        _write_items(folder / f"{metric.name}.parquet", metric, others[i] if others else None)
    write_report(folder / "report.html", result, metrics, others)
    write_json(path, result)
    return path


def _about(name: str, model: PreTrainedModel) -> dict[str, Any]:
    parameters = dict(model.named_parameters())
    return {
        "name": name,
        "architecture": type(model).__name__,
        "weights": sum(p.numel() for p in parameters.values()),
        "fingerprint": fingerprint(parameters),
    }


def differing_weights(first: PreTrainedModel, second: PreTrainedModel) -> int | None:
    """How many weights differ; None where the two models are not of one shape."""
    one, two = dict(first.named_parameters()), dict(second.named_parameters())
    if {name: p.shape for name, p in one.items()} != {name: p.shape for name, p in two.items()}:
        return None
    return sum(int((p != two[name]).sum()) for name, p in one.items())


def _short(name: str) -> str:
    return Path(name).resolve().name if Path(name).is_dir() else name.replace("/", "--")


def _write_items(path: Path, metric: ItemMetric, other: ItemMetric | None) -> None:
    """One row an item: its texts, the model's values, and those of the other model and the differences."""
    table = metric.described()
    if other:
        for column, values in other.items().items():
            if column != "item" and values.dtype.kind == "f":
                table |= {f"{column}_against": values, f"{column}_difference": table[column] - values}
    with replaced_file(path) as temporary:
        pq.write_table(pa.table(table), temporary)
