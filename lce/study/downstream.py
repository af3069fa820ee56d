"""Downstream: a masked language model fine-tuned on a task of sentence pairs, to see what an edit has cost it.

The whole encoder is trained under a fresh head on the mean of its tokens' vectors (Reimers and Gurevych 2019,
section 3): a model that was pretrained on masked words alone has learned nothing special for its first token. A task
is regression where its labels are numbers with a point, else classification.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader
from torchmetrics import Metric, PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.classification import MulticlassAccuracy
from transformers import DataCollatorWithPadding

from lce.data import wheels
from lce.data.batches import shuffled_batches, sorted_batches
from lce.data.sources import load_from_hub
from lce.foundations.errors import LceError
from lce.foundations.seeds import derive, generator
from lce.metrics.items import defined
from lce.metrics.suite import Scores
from lce.models.fast_linear import OneDnnLinear
from lce.study.settings import STSB, DownstreamSettings
from lce.training.module import linear_schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLUMNS = ("sentence1", "sentence2", "label")
HUB = {
    "mnli": (
        "premise",
        "hypothesis",
        {"train": "train", "matched": "validation_matched", "mismatched": "validation_mismatched"},
    ),
    "stsb": ("sentence1", "sentence2", {"train": "train", "dev": "validation"}),
}
"""GLUE tasks by name: the columns of the two sentences, and the splits."""


@dataclass(frozen=True)
class Task:
    """Pairs to train and to evaluate on (columns `COLUMNS`), and the number of classes, 0 for regression."""

    name: str
    train: pd.DataFrame
    evaluation: Mapping[str, pd.DataFrame]
    classes: int


def load_task(name: str, downloads: str | Path) -> Task:
    """The task ``name``: see `DownstreamSettings.tasks`.

    Raises:
        LceError: it is unknown, cannot be fetched, or a file of it lacks a column or holds no pairs.
    """
    if name in HUB:
        parts = _from_hub(name)
    elif name == STSB:
        folder = wheels.fetch(wheels.STSB, downloads)
        parts = {part: _read_stsb(folder / f"sts-{part}.csv") for part in ("train", "dev")}
    elif Path(name).is_dir():
        parts = {path.stem: _read_pairs(path) for path in sorted(Path(name).glob("*.tsv"))}
    else:
        known = ", ".join([*HUB, STSB])
        raise LceError(f"downstream.tasks: neither a folder nor a known task: {name!r}; known are {known}")
    if len(parts) < 2 or "train" not in parts:
        raise LceError(f"{name}: expected train.tsv and at least one other .tsv file to evaluate on")
    labels = pd.concat([part["label"] for part in parts.values()])
    classes = 0
    if not pd.api.types.is_float_dtype(labels):
        numbers = {label: number for number, label in enumerate(sorted(labels.unique()))}
        parts = {key: part.assign(label=part["label"].map(numbers)) for key, part in parts.items()}
        classes = len(numbers)
    return Task(name, parts.pop("train"), parts, classes)


def _from_hub(name: str) -> dict[str, pd.DataFrame]:
    first, second, splits = HUB[name]
    loaded = {key: load_from_hub("nyu-mll/glue", name=name, split=split) for key, split in splits.items()}
    named = {first: "sentence1", second: "sentence2"}
    return {key: part.to_pandas().rename(columns=named)[list(COLUMNS)] for key, part in loaded.items()}


def _read_stsb(path: Path) -> pd.DataFrame:
    """STS-B as published: tab-separated without quoting; fields 5 to 7 are score and sentences, more may follow."""
    rows = [line.split("\t")[4:7] for line in path.read_text(encoding="utf-8").splitlines()]
    return pd.DataFrame([(first, second, float(score)) for score, first, second in rows], columns=list(COLUMNS))


def _read_pairs(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE)
    except (OSError, ValueError) as error:
        raise LceError(f"{path}: cannot be read as tab-separated text ({error})") from error
    if missing := sorted(set(COLUMNS) - set(frame.columns)):
        raise LceError(f"{path}: lacks the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    if not len(frame) or frame[list(COLUMNS)].isna().any(axis=None):
        raise LceError(f"{path}: holds no sentence pairs, or some without a sentence or label")
    return frame[list(COLUMNS)]


class PairModel(L.LightningModule):
    """An encoder under a head over the mean of its tokens: dense, tanh, dropout, linear.

    Args:
        encoder: the model's own; it is trained in place.
        task: says which outputs and scores there are.
        learning_rate: the highest; it rises over a tenth of the ``steps`` and falls linearly to zero.
        seed: seed of the head and of the dropout.
    """

    def __init__(self, encoder: PreTrainedModel, task: Task, learning_rate: float, steps: int, seed: int) -> None:
        super().__init__()
        self.encoder, self.task, self.seed = encoder, task, seed
        self.learning_rate, self.steps = learning_rate, steps
        width = encoder.config.hidden_size
        self.dense, self.out = nn.Linear(width, width), nn.Linear(width, max(1, task.classes))
        random = generator(seed, "downstream head")
        for layer in (self.dense, self.out):
            nn.init.normal_(layer.weight, std=0.02, generator=random)
            nn.init.zeros_(layer.bias)
        self.dropout = nn.Dropout(0.1)
        self.label_mean, self.label_std = task.train["label"].mean(), task.train["label"].std()
        self.scores = {split: self._metrics() for split in task.evaluation}

    def _metrics(self) -> dict[str, Metric]:
        if self.task.classes:
            return {"accuracy": MulticlassAccuracy(self.task.classes, average="micro")}
        return {"pearson": PearsonCorrCoef(), "spearman": SpearmanCorrCoef()}

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(pairs, classes) logits, or (pairs,) numbers, standardised as the training labels are."""
        counted = inputs["attention_mask"].unsqueeze(-1)
        with OneDnnLinear():
            states = self.encoder(**inputs).last_hidden_state
            mean = (states * counted).sum(1) / counted.sum(1)
            result: Tensor = self.out(self.dropout(torch.tanh(self.dense(mean))))
        return result if self.task.classes else result.squeeze(-1)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(derive(self.seed, "downstream dropout", self.global_step))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        labels = batch.pop("labels")
        if self.task.classes:
            return cross_entropy(self(batch), labels)
        return mse_loss(self(batch), (labels - self.label_mean) / self.label_std)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        labels = batch.pop("labels").cpu()
        predicted = self(batch).float().cpu()
        for metric in list(self.scores.values())[dataloader_idx].values():
            metric.update(predicted, labels)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.01)
        schedule = linear_schedule(self.steps // 10, self.steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    settings: DownstreamSettings,
    seed: int,
    trainer_options: Mapping[str, Any],
) -> Scores:
    """Fine-tune a copy of ``model`` on ``task``; return its scores on the splits to evaluate on [%]."""
    encoder: Any = deepcopy(model.base_model)
    steps = max(1, round(settings.epochs * len(task.train) / settings.batch_size))
    module = PairModel(encoder, task, settings.learning_rate, steps, seed).train()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    alone = {"devices": 1, "num_nodes": 1, "strategy": "auto", "accumulate_grad_batches": 1}
    options = dict(trainer_options) | quiet | alone
    trainer = L.Trainer(**options, max_steps=steps, logger=False, use_distributed_sampler=False)

    def loader(pairs: pd.DataFrame, is_training: bool) -> DataLoader[Any]:
        features = _features(pairs, tokenizer, settings.max_length)
        sizes = torch.tensor([len(feature["input_ids"]) for feature in features])
        batches = (
            _training_batches(sizes, settings.batch_size, steps, seed)
            if is_training
            else sorted_batches(sizes, settings.batch_size)
        )
        return DataLoader(cast(Any, features), batch_sampler=batches, collate_fn=DataCollatorWithPadding(tokenizer))

    trainer.fit(module, loader(task.train, True))
    trainer.validate(module, [loader(pairs, False) for pairs in task.evaluation.values()], verbose=False)
    return {
        f"{split}_{name}": {"value": defined(100 * float(metric.compute())), "n": len(task.evaluation[split])}
        for split, metrics in module.scores.items()
        for name, metric in metrics.items()
    }


def _features(pairs: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[dict[str, Any]]:
    longest = min(max_length, tokenizer.model_max_length)
    encoded = tokenizer(list(pairs["sentence1"]), list(pairs["sentence2"]), truncation=True, max_length=longest)
    labels = pairs["label"].tolist()
    return [{key: encoded[key][i] for key in encoded} | {"labels": labels[i]} for i in range(len(labels))]


def _training_batches(sizes: Tensor, batch_size: int, steps: int, seed: int) -> list[list[int]]:
    batches: list[list[int]] = []
    while len(batches) < steps:
        batches += shuffled_batches(sizes, batch_size, seed, epoch=len(batches))
    return batches[:steps]
