"""`lce evaluate`: one model measured, alone or against another, its scores, items and page written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lce.config import Settings
from lce.evaluation.evaluator import Evaluator
from lce.evaluation.report import write_report
from lce.foundations.atomic_files import replaced_file
from lce.foundations.errors import LceError
from lce.foundations.files import save_config, write_json
from lce.foundations.overwriting import check_own_folder, check_replaceable
from lce.foundations.paths import CONFIG, shipped
from lce.foundations.seeds import derive
from lce.metrics.items import ItemMetric, differences
from lce.metrics.suite import all_scores
from lce.models.converted import provide
from lce.models.kinds import kind_of
from lce.models.loading import load_language_model
from lce.storage.torch_bridge import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    provide(name, settings.data.downloads)
    model, tokenizer = load_language_model(name, settings.trust_remote_code)
    result: dict[str, Any] = {"model": _about(name, model)}
    models = [model]
    if against:
        other, other_tokenizer = load_language_model(against, settings.trust_remote_code)
        if kind_of(name, model.config) != kind_of(against, other.config):
            raise LceError(f"{name} and {against}: one is masked, the other causal; they have no score in common")
        if other_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise LceError(f"{name} and {against}: have different vocabularies; token scores cannot be compared")
        tokenizer.model_max_length = min(tokenizer.model_max_length, other_tokenizer.model_max_length)
        result["against"] = {**_about(against, other), "weights_differing": differing_weights(model, other)}
        models.append(other)
    evaluator = Evaluator(settings, trainer_options, tokenizer, kind_of(name, model.config))
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
    return shipped(name).resolve().name if shipped(name).is_dir() else name.replace("/", "--")


def _write_items(path: Path, metric: ItemMetric, other: ItemMetric | None) -> None:
    """One row an item: its texts, the model's values, and those of the other model and the differences."""
    table = metric.described()
    if other:
        for column, values in other.items().items():
            if column != "item" and values.dtype.kind == "f":
                table |= {f"{column}_against": values, f"{column}_difference": table[column] - values}
    with replaced_file(path) as temporary:
        pq.write_table(pa.table(table), temporary)
