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

from lce.config import Settings
from lce.data.encoding import encode
from lce.data.module import UNBOUNDED, evaluation_loader, read_examples, read_text
from lce.data.prepare import prepare_examples
from lce.edit.callback import EditCallback
from lce.evaluation.report import write_report
from lce.foundations.atomic_files import replaced_file
from lce.foundations.errors import LceError
from lce.foundations.files import read_json, save_config, write_json
from lce.foundations.overwriting import check_own_folder, check_replaceable
from lce.foundations.paths import CONFIG, EXAMPLES, SCORES
from lce.foundations.seeds import derive
from lce.metrics.items import ItemMetric, differences
from lce.metrics.scoring import PROCESSOR_TOKENS
from lce.metrics.suite import BiasSuite, Scores, all_scores
from lce.models.loading import load_masked_lm
from lce.storage.changes import Changes
from lce.storage.torch_bridge import fingerprint
from lce.training.module import MaskedLanguageModel
from lce.training.trainer_options import numerics, on_one_device

if TYPE_CHECKING:
    from lightning.pytorch.loggers import TensorBoardLogger
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"bf16-true": "bfloat16", "16-true": "float16", "64-true": "float64"}
"""Type of the weights by the Trainer's precision, where it is not float32."""
LIBRARIES = ("lce", "torch", "transformers", "tokenizers", "lightning", "numpy", "scipy")


class Evaluator:
    """Scores models that share one tokenizer, all on the same sentences with the same masks."""

    def __init__(
        self, settings: Settings, trainer_options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.settings = settings
        self.sentences, self.max_length = _sentences(settings, tokenizer)
        suited = self.sentences or [tokenizer.mask_token]  # Lightning validates nothing without a batch
        texts = encode(suited, suited, tokenizer, None, self.max_length)
        batch = max(1, (settings.evaluation.tokens_per_batch or PROCESSOR_TOKENS) // int(texts.sizes.max()))
        self.loader = evaluation_loader(texts, tokenizer, batch, settings.train.mask_probability)
        self.suite = BiasSuite(settings.evaluation, tokenizer, settings.data.downloads, self.sentences, self.max_length)
        if self.sentences:
            self.suite.data["sentences"] = fingerprint({"ids": texts.ids, "offsets": texts.offsets})
        self.options = on_one_device(trainer_options)
        self.kept_scores = Path(settings.experiment) / SCORES
        self.measure = [
            version("lce"),
            asdict(settings.evaluation),
            self.suite.data,
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
        return self._run(model, changes, logger, **options).scores

    def metrics(self, model: PreTrainedModel) -> list[ItemMetric]:
        """The metrics of ``model`` with all their items."""
        metrics = self._run(model).metrics
        for metric in metrics:
            if metric.name == "perplexity":
                metric.texts = {"sentence": self.sentences}
        return metrics

    def _run(
        self,
        model: PreTrainedModel,
        changes: Changes | None = None,
        logger: TensorBoardLogger | None = None,
        **options: Any,
    ) -> EditCallback:
        callback = EditCallback(changes, self.suite, **options)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(
            **(self.options | quiet), logger=logger or False, callbacks=[callback], use_distributed_sampler=False
        )
        trainer.validate(MaskedLanguageModel(model), self.loader, verbose=False)
        return callback

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
            "sentences": len(self.sentences),
            "max_length": self.max_length,
            "tokens_per_batch": self.suite.budget.tokens,
            "data_sha256": self.suite.data,
            "odd_items": {name: items for name, items in self.suite.odd.items() if items},
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{device} ({platform.machine()})",
            "dtype": DTYPES.get(str(precision), "float32"),
            "precision": str(precision),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        }


def _sentences(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], int]:
    """The sentences that perplexities are measured on, and the tokens at which they are cut; none if none is asked."""
    about = settings.evaluation
    longest = min(tokenizer.model_max_length, UNBOUNDED)
    if not any("perplexity" in metric for metric in about.metrics):
        return [], longest
    if about.text:
        return read_text(about.text, tokenizer)[: about.limit], longest
    prepare_examples(settings.data)
    texts, _ = read_examples(Path(settings.data.folder) / EXAMPLES, None, True)
    return texts[: about.limit], min(settings.train.max_length, longest)


def run_evaluate(settings: Settings, trainer_options: Mapping[str, Any], name: str, against: str | None) -> Path:
    """Measure the model ``name``, and ``against`` another one if there is one; return the JSON file of the scores.

    In a folder of the same name beside it are report.html, and one parquet file of items per metric.

    Raises:
        LceError: a model or the data cannot be used, the two models have different vocabularies, or the output is
            to be no .json file.
    """
    if settings.output and not settings.output.endswith(".json"):
        raise LceError(f"output: expected the name of a .json file, got {settings.output}")
    if settings.output:
        check_replaceable(settings.output, "evaluation")
        check_own_folder(Path(settings.output).with_suffix(""), CONFIG, "evaluate")
    model, tokenizer = load_masked_lm(name, settings.trust_remote_code)
    result: dict[str, Any] = {"model": _about(name, model)}
    models = [model]
    if against:
        other, other_tokenizer = load_masked_lm(against, settings.trust_remote_code)
        if other_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise LceError(f"{name} and {against}: have different vocabularies; token scores cannot be compared")
        tokenizer.model_max_length = min(tokenizer.model_max_length, other_tokenizer.model_max_length)
        result["against"] = {**_about(against, other), "weights_differing": differing_weights(model, other)}
        models.append(other)
    evaluator = Evaluator(settings, trainer_options, tokenizer)
    metrics, *others = (evaluator.metrics(one) for one in models)
    result["scores"] = all_scores(metrics)
    if others:
        pairs = zip(metrics, others[0], strict=True)
        result["scores_against"] = all_scores(others[0])
        result["differences"] = {key: row for pair in pairs for key, row in differences(*pair).items()}
    result["measured_with"] = evaluator.provenance()
    path = Path(settings.output or _default_output(settings, result))
    folder = path.with_suffix("")
    save_config(folder / CONFIG, asdict(settings) | {"trainer": dict(trainer_options)}, "evaluate")
    for i, metric in enumerate(metrics):
        _write_items(folder / f"{metric.name}.parquet", metric, others[0][i] if others else None)
    write_json(path, result)
    write_report(folder / "report.html", result, metrics, others[0] if others else [])
    return path


def _default_output(settings: Settings, result: dict[str, Any]) -> Path:
    """A name for each model, or pair of them, and each way of measuring them."""
    sides = [result[side] for side in ("model", "against") if side in result]
    parts = [f"{_short(side['name'])}-{side['fingerprint'][:6]}" for side in sides]
    way = derive(str(asdict(settings.evaluation)), result["measured_with"]["precision"]) % 16**6
    return Path(settings.experiment) / "evaluations" / f"{'-against-'.join(parts)}-{way:06x}.json"


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
