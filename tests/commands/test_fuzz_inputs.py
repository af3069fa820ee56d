"""Files of a model and a specification as anybody may have written them: refused in one line, or used rightly.

By default each test tries a fifth of its mutants; LCE_FUZZ=all tries all of them.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, own_sentences
from mutations import mutant

from lce.data.cda import annotate, identity, render
from lce.data.specification import load_specification
from lce.foundations.errors import LceError
from lce.foundations.files import write_json
from lce.models.layers import prunable_parameters
from lce.models.loading import load_language_model
from lce.models.logits import logits_at
from lce.storage.in_memory import load_subnetwork, read_record
from lce.storage.masks import Mask
from lce.training.pruning.imp import save_level

SENTENCES = ["She was a good nurse.", "the [MASK] is near the river", "Ünknown \u2603 words, x-ray", "", "he " * 40]
RECORD = {
    "variant": "neutral", "seed": 0, "base": "b", "sparsity": 0.0, "schedule": [0.0], "pruned": 0, "prunable": 9,
    "perplexity": 9.5, "dense_perplexity": 9.5, "winning_ticket": True,
}  # fmt: skip
LONGEST = 20.0
"""Time that one mutant may take, loading and computing [s]: what is absurdly large must not be tried."""
LARGEST = 256
"""Memory that one mutant may take beyond what was taken before [MiB]."""


def from_json(content: bytes) -> Any:
    return json.loads(content)


def to_json(tree: Any) -> bytes:
    return json.dumps(tree, indent=1).encode()


def from_yaml(content: bytes) -> Any:
    return yaml.load(content, yaml.CSafeLoader)


def to_yaml(tree: Any) -> bytes:
    try:
        return yaml.dump(tree, Dumper=yaml.CSafeDumper).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON, a part of YAML, can write
        return to_json(tree)


def peak() -> int:
    """The most memory that this process has ever had [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def check_mutants(
    path: Path, count: int, use: Callable[[], None], parse: Callable[[bytes], Any], dump: Callable[[Any], bytes]
) -> None:
    """Put mutants of the file ``path`` in its place, one after the other, and ``use`` each."""
    content = path.read_bytes()
    use()
    faults, refused = [], 0
    for number in range(count if os.environ.get("LCE_FUZZ") == "all" else count // 5):
        changed = mutant(content, Random(f"{path.name} {number}"), parse, dump)
        path.write_bytes(changed)
        started, memory = time.perf_counter(), peak()
        try:
            use()
        except LceError as error:
            refused += 1
            if os.environ.get("LCE_SHOW"):
                print("MSG", number, repr(str(error).replace(str(path.parent), "")))
            if "\n" in str(error) or len(str(error)) > 1000:
                faults.append(f"{number}: is refused in {len(str(error))} letters: {error}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            faults.append(f"{number}: {type(error).__name__}: {error}"[:300])
        if (seconds := time.perf_counter() - started) > LONGEST:
            faults.append(f"{number}: takes {seconds:.0f} s")
        if (taken := peak() - memory) > LARGEST:
            faults.append(f"{number}: takes {taken:,} MiB")
    path.write_bytes(content)
    assert refused, "not even one mutant is refused"
    assert not faults, f"{len(faults)} mutants end otherwise:\n" + "\n".join(faults)


@pytest.fixture
def folder(model: Any, tokenizer: Any, tmp_path: Path) -> Path:
    """A tiny model's folder."""
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def use_model(folder: Path) -> None:
    """What every command does with a model: load it, split sentences, and compute at their masked places."""
    model, tokenizer = load_language_model(folder)
    encoded = tokenizer(SENTENCES, truncation=True, max_length=tokenizer.model_max_length, return_offsets_mapping=True)
    for ids in encoded["input_ids"]:
        assert tokenizer.pad_token_id is not None
        if ids:
            row = torch.tensor([ids])
            with torch.no_grad():
                logits_at(model, row, torch.ones_like(row), torch.tensor([0]))


@pytest.mark.parametrize(
    ("name", "count"), [("config.json", 1000), ("tokenizer.json", 500), ("tokenizer_config.json", 500)]
)
def test_a_model(name: str, count: int, folder: Path) -> None:
    check_mutants(folder / name, count, lambda: use_model(folder), from_json, to_json)


def test_a_record(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    mask = Mask.dense(prunable_parameters(model))
    level = tmp_path / "level"
    save_level(level, model, tokenizer, mask, prunable_parameters(model), RECORD)

    def use() -> None:
        record = read_record(level, ["perplexity"])
        assert record["perplexity"] <= 1.05 * record["perplexity"] or record["perplexity"] < 0
        assert record.get("schedule") != [0.5]
        target = load_subnetwork(level, mask.kept)
        write_json(tmp_path / "summary.json", {"levels": [{**record, "existed": True}]})
        write_json(tmp_path / "result.json", {"sparsity": record.get("sparsity", target.mask.sparsity)})

    check_mutants(level / "subnetwork/record.json", 500, use, from_json, to_json)


def test_a_specification(tmp_path: Path) -> None:
    path, whole = tmp_path / "bias.yaml", from_yaml((ROOT / "configs/bias/gender.yaml").read_bytes())
    whole["target_pairs"] = whole["target_pairs"][:4]
    whole["attributes"] = {group: words[:5] for group, words in whole["attributes"].items()}
    path.write_bytes(to_yaml(whole))
    sentences = own_sentences()[::30] + SENTENCES

    def use() -> None:
        spec = load_specification(path)
        for sentence in sentences:
            for term in spec.find(sentence):
                if term.is_target:
                    spec.swap(sentence, term).encode()
            render(sentence, annotate(sentence, spec), "stereotypical").encode()
            identity(sentence, spec, seed=0)
        write_json(tmp_path / "report.json", {"name": spec.name, "groups": spec.groups})

    check_mutants(path, 2000, use, from_yaml, to_yaml)
