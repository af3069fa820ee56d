"""The paper's setting, configs/bert-base.yaml, against a server that speaks the hub's protocol: tiny model, tiny text.

Commands run in processes of their own that know the server by HF_ENDPOINT alone, as a user's would.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import BASE, ROOT, own_sentences
from hub_server import Hub
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

CONFIG = ["--config", str(ROOT / "configs/bert-base.yaml")]
STUDY = ["--config", str(ROOT / "configs/study-bert-base.yaml")]
FEW = ["--train.steps", "3", "--train.batch_size", "8", "--train.learning_rate", "0.01", "--trainer.accelerator", "cpu"]
TEXT = ["--data.processes", "1"]
LESS = ["--evaluation.limit", "6"]
IN_TURN = """
import json, sys
from lce.cli import main
for arguments in map(json.loads, sys.argv[1:]):
    if status := main(arguments):
        sys.exit(status)
"""
MODEL, DATA, TASKS = "google-bert/bert-base-uncased", "wikimedia/wikipedia", "nyu-mll/glue"


@dataclass
class User:
    """Somebody who types commands in an empty folder."""

    hub: Hub
    folder: Path

    def types(self, *commands: list[str], **environment: str) -> str:
        """What commands print that all succeed, in turn in one process, whose start takes longer than they do."""
        done = self._run(["-c", IN_TURN, *map(json.dumps, commands)], environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def is_told(self, *arguments: str) -> str:
        """The one line by which a command fails."""
        done = self._run(["-m", "lce.cli", *arguments], {})
        assert done.returncode == 2, done.stdout
        errors = [line for line in done.stderr.splitlines() if line.startswith("lce: error: ")]
        assert len(errors) == 1, done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        return errors[0]

    def _run(self, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        own = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "home"), "NO_PROXY": "127.0.0.1,localhost"}
        told = os.environ | own | {"PYTHONPATH": str(ROOT)} | environment
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=told, capture_output=True, text=True, timeout=300
        )


def publish_model(folder: Path) -> Path:
    """A model of bert's shape in small, that takes sentences of 512 tokens."""
    tokenizer = BertTokenizer.from_pretrained(BASE)
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **small)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def publish_set(folder: Path, configurations: dict[str, dict[str, dict[str, list[Any]]]]) -> Path:
    """A data set of parquet files: configuration → split → columns."""
    cards = []
    for name, splits in configurations.items():
        (folder / name).mkdir(parents=True)
        for split, columns in splits.items():
            pd.DataFrame(columns).to_parquet(folder / name / f"{split}-00000-of-00001.parquet")
        cards.append((name, [f"  - split: {split}\n    path: {name}/{split}-*" for split in splits]))
    blocks = [f"- config_name: {name}\n  data_files:\n" + "\n".join(lines) for name, lines in cards]
    (folder / "README.md").write_text("---\nconfigs:\n" + "\n".join(blocks) + "\n---\n", encoding="utf-8")
    return folder


def pairs(first: str, second: str, labels: list[Any]) -> dict[str, list[Any]]:
    texts = own_sentences()[: len(labels)]
    return {first: texts, second: texts[::-1], "label": labels}


@pytest.fixture
def user(tmp_path: Path, benchmarks: Path) -> Iterator[User]:
    hub = Hub()
    hub.models[MODEL] = publish_model(tmp_path / "published/model")
    hub.aliases["bert-base-uncased"] = MODEL
    articles = [" ".join(own_sentences()[i::8]) for i in range(8)]
    wiki = {"20231101.en": {"train": {"id": list("01234567"), "text": articles}}}
    hub.datasets[DATA] = publish_set(tmp_path / "published/wiki", wiki)
    nli = {split: pairs("premise", "hypothesis", [0, 1, 2] * 8) for split in ("train", "validation_matched")}
    nli["validation_mismatched"] = nli["validation_matched"]
    similar = {split: pairs("sentence1", "sentence2", [0.5, 2.5, 4.0] * 8) for split in ("train", "validation")}
    hub.datasets[TASKS] = publish_set(tmp_path / "published/tasks", {"mnli": nli, "stsb": similar})
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    (folder / "data/downloads").symlink_to(benchmarks.parent)
    yield User(hub, folder)
    hub.close()


def test_the_papers_setting_from_the_hub_and_offline_afterwards(user: User) -> None:
    train, edit = ["train", *CONFIG, *TEXT, *FEW], ["edit", *CONFIG, *TEXT, *LESS]
    variants = ("stereotypical", "anti-stereotypical")
    pair = [[*train, "--variant", variant] for variant in variants]
    result = Path(user.types(["data", *CONFIG, *TEXT], *pair, [*edit, "--alpha", "2"]).splitlines()[-1])
    report = json.loads((user.folder / "data/bert-base/report.json").read_text(encoding="utf-8"))
    assert report["roles"]["biased"] == 128
    assert json.loads((user.folder / result).read_text(encoding="utf-8"))["edited"]["count"] > 0
    level = "runs/bert-base/seed-0/stereotypical/sparsity-30"
    record = json.loads((user.folder / level / "subnetwork/record.json").read_text(encoding="utf-8"))
    assert record["base_commit"] == user.hub.commit(MODEL)

    edits = '[{"pairs": [["stereotypical", "anti-stereotypical"]], "localizations": ["mask"], "downstream": true}]'
    fewer = ["--seeds", "[0]", "--variants", json.dumps(variants), "--sparsities", "[0.3]"]
    fewer += ["--gpus_per_task", "0", "--cpus_per_task", "1"]
    sweep = ["sweep", *STUDY, *TEXT, *FEW, *LESS, *fewer, "--edits", edits, "--downstream.epochs", "0.5"]
    evaluate = ["evaluate", level, "--against", "bert-base-uncased", *CONFIG, *TEXT, "--limit", "6"]
    user.types(evaluate, sweep, ["report", "runs/study-bert-base"])
    names = {path.stem.split("-seed")[0] for path in (user.folder / "runs/study-bert-base/cells").glob("*.json")}
    assert names == {"train", "measure", "compare", "edit", "finetune"}

    before = len(user.hub.requests)
    user.hub.close()
    user.types([*train, "--variant", "stereotypical", "--seed", "1"])
    shutil.copytree(user.folder / "runs/study-bert-base/seed-0", user.folder / "runs/again/seed-0")
    data = ["data", *CONFIG, *TEXT, "--data.folder", "data/again"]
    user.types([*edit, "--alpha", "3"], data, [*sweep, "--experiment", "runs/again"], HF_HUB_OFFLINE="1")
    assert len(user.hub.requests) == before


REFUSALS = {"401": (401, ""), "gated": (403, "GatedRepo"), "missing": (404, "RepoNotFound"), "500": (500, "")}


def refuse(hub: Hub, name: str, fault: str) -> None:
    if fault in REFUSALS:
        hub.refusals[name] = REFUSALS[fault]
    hub.hangs = fault == "slow"
    if fault == "broken":
        hub.truncated = "model.safetensors" if name == MODEL else "train-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("401", "hf auth login"),
        ("gated", "accept its terms on the hub"),
        ("missing", "no such folder, nor, for this user, such a data set on the hub"),
        ("500", "no copy of it on this machine, and the hub is out of order"),
        ("slow", "no copy of it on this machine, and the hub cannot be reached: no answer within 5 s"),
        ("broken", "peer closed connection without sending complete message body"),
    ],
)
def test_a_data_set_that_the_hub_does_not_give(fault: str, told: str, user: User) -> None:
    refuse(user.hub, DATA, fault)
    line = user.is_told("data", *CONFIG, *TEXT)
    assert line.startswith(f"lce: error: data set {DATA}: ")
    assert told in line
    if fault == "broken":  # which alone may leave half a file
        user.hub.truncated = ""
        user.types(["data", *CONFIG, *TEXT])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("401", "hf auth login"),
        ("missing", "no such folder, nor, for this user, such a model on the hub"),
        ("slow", "no whole copy of it in the cache, and the hub cannot be reached: no answer within 5 s"),
        ("broken", "cannot be downloaded from the hub"),
    ],
)
def test_a_model_that_the_hub_does_not_give(fault: str, told: str, user: User) -> None:
    refuse(user.hub, MODEL, fault)
    line = user.is_told("evaluate", "bert-base-uncased", *CONFIG, *TEXT, "--limit", "2")
    assert line.startswith("lce: error: model bert-base-uncased: ")
    assert told in line
    assert not (user.folder / "runs").exists()
