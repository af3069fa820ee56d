from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertTokenizer

from lce.foundations.errors import LceError
from lce.models.layers import prunable_parameters
from lce.storage.in_memory import load_subnetwork, read_record
from lce.storage.masks import Mask, magnitude_prune
from lce.training.pruning.imp import save_level

RECORD = {
    "variant": "neutral", "seed": 0, "base": "b", "sparsity": 0.2, "schedule": [0.0, 0.2], "pruned": 1, "prunable": 9,
    "perplexity": 9.5, "dense_perplexity": 9.5, "winning_ticket": True,
}  # fmt: skip


@pytest.fixture
def level(model: BertForMaskedLM, tokenizer: BertTokenizer, tmp_path: Path) -> Path:
    parameters = prunable_parameters(model)
    mask = magnitude_prune(parameters, Mask.dense(parameters), 0.2)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    mask.apply_(parameters)
    save_level(tmp_path / "level", model, tokenizer, mask, before, RECORD)
    return tmp_path / "level"


def write(level: Path, content: Any) -> None:
    (level / "subnetwork/record.json").write_text(json.dumps(content), encoding="utf-8")


def test_older_and_newer_records_are_read(level: Path, tmp_path: Path) -> None:
    assert read_record(level, RECORD) == RECORD
    assert read_record(tmp_path) == {}
    older = {key: value for key, value in RECORD.items() if key != "schedule"} | {"other": [None, {"x": 1}]}
    write(level, older)
    assert read_record(level) == older
    with pytest.raises(LceError, match=r"record.json: has no schedule"):
        read_record(level, ["schedule"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a mapping, got list"),
        (None, "expected a mapping, got NoneType"),
        (RECORD | {"schedule": 3}, "schedule is 3; expected a list"),
        (RECORD | {"schedule": [0.0, "0.2"]}, "schedule is"),
        (RECORD | {"sparsity": 1}, "sparsity is 1; expected a share"),
        (RECORD | {"perplexity": None}, "perplexity is None; expected a number"),
        (RECORD | {"perplexity": True}, "perplexity is True; expected a number"),
        (RECORD | {"perplexity": float("nan")}, "perplexity is nan; expected a number"),
        (RECORD | {"dense_perplexity": "9"}, "dense_perplexity is '9'"),
        (RECORD | {"seed": 0.5}, "seed is 0.5; expected a whole number"),
        (RECORD | {"variant": ["a"] * 999}, "variant is"),
        (RECORD | {"other": {"deep": [float("inf")]}}, "holds what no record can"),
        (RECORD | {"other": "\ud800"}, "holds what no record can"),
    ],
)
def test_a_record_of_other_types_is_refused(content: Any, message: str, level: Path) -> None:
    write(level, content)
    with pytest.raises(LceError, match=f"record.json: {message}") as caught:
        read_record(level)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_values_that_do_not_fit_the_mask_are_refused(level: Path) -> None:
    path = level / "subnetwork/pruned_values.safetensors"
    whole = load_file(path)
    names = list(whole)
    assert load_subnetwork(level, names).is_pruned
    name = names[0]
    for values in (whole[name][1:], whole[name][:, None], torch.tensor(1.0), whole[name].int()):
        save_file(whole | {name: values.contiguous()}, path)
        with pytest.raises(LceError, match=f"does not fit the mask beside it in {name}"):
            load_subnetwork(level, names)
