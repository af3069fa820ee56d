"""Mutants of the other files that lce writes: selections, masks and pruned values. Each is refused or does the same.

By default a fifth of the mutants are tried; LCE_FUZZ=all tries all of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from architectures import saved
from conftest import tiny_bert
from file_mutants import File, flip_in, length, raw
from transformers import BertTokenizer

from lce.config import EditSettings
from lce.edit.weight_edit import WeightEdit
from lce.foundations.errors import LceError
from lce.foundations.paths import MASK, PRUNED_VALUES, SUBNETWORK
from lce.localize.pair import open_pair, select
from lce.localize.selection import Selection
from lce.models.layers import prunable_parameters
from lce.storage.in_memory import load_subnetwork
from lce.storage.masks import Mask, magnitude_prune
from lce.training.pruning.imp import save_level

MUTANTS = 1000 if os.environ.get("LCE_FUZZ") == "all" else 200
Mutate = Callable[[bytes, Random], bytes]


def bit(content: bytes, random: Random) -> bytes:
    """A bit of a tensor is turned."""
    file = File(content)
    flip_in(file, random, random.choice([name for name in file.names() if file.header[name]["shape"] != [0]]))
    return file.joined()


def letter(content: bytes, random: Random) -> bytes:
    """A letter of what the file says of itself is another one."""
    file = File(content)
    key = random.choice(list(file.header["__metadata__"]))
    text = file.header["__metadata__"][key]
    place = random.randrange(len(text))
    file.header["__metadata__"][key] = text[:place] + chr(random.randrange(32, 127)) + text[place + 1 :]
    return file.joined()


def exchange(content: bytes, random: Random) -> bytes:
    """Two tensors go by each other's name."""
    file = File(content)
    one, other = random.choice(file.names()), random.choice(file.names())
    file.header[one], file.header[other] = file.header[other], file.header[one]
    return file.joined()


KINDS: list[Mutate] = [bit, letter, exchange, length, raw]


def check_all(file: Path, use: Callable[[], object], seed: str) -> None:
    """No mutant of ``file`` has another outcome than the file itself, or is refused in more than a line."""
    content, expected, random = file.read_bytes(), use(), Random(seed)
    refused = 0
    for number in range(MUTANTS):
        file.write_bytes(KINDS[number % len(KINDS)](content, random))
        try:
            assert use() == expected, KINDS[number % len(KINDS)].__name__
        except LceError as refusal:
            refused += "\n" not in str(refusal)
    file.write_bytes(content)
    print(f"{seed}: {MUTANTS} mutants, {refused} refused")
    assert refused > MUTANTS / 2


@pytest.mark.parametrize("localization", ["value", "mask"])
def test_selections(localization: str, tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        saved("llama", tmp_path / name, seed)
    a, b, selection = (str(tmp_path / name) for name in ("a", "b", "s.safetensors"))
    settings = EditSettings(localization=localization)
    select(open_pair(a, b, settings), settings, Path(selection))
    strategy = "mask-switch" if localization == "mask" else "linear"

    def edited() -> bytes:
        read = Selection.load(Path(selection))
        edit = WeightEdit(read, *open_pair(a, b, None, read, localization == "mask"), strategy, 2.0)
        edit.patch(tmp_path / "p.safetensors")
        return (tmp_path / "p.safetensors").read_bytes()

    check_all(Path(selection), edited, f"selections, {localization}")


@pytest.mark.parametrize("file", [MASK, PRUNED_VALUES])
def test_masks_and_pruned_values(file: str, tmp_path: Path, tokenizer: BertTokenizer) -> None:
    model = tiny_bert(tokenizer)
    parameters = prunable_parameters(model)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    mask = magnitude_prune(before, Mask.dense(before), 0.3)
    mask.apply_({name: parameter.data for name, parameter in parameters.items()})
    save_level(tmp_path / "level", model, tokenizer, mask, before, {"sparsity": 0.3})

    def loaded() -> list[bytes]:
        subnetwork = load_subnetwork(tmp_path / "level", list(before))
        return [subnetwork.values_before_pruning(subnetwork.whole(name)).numpy().tobytes() for name in before]

    check_all(tmp_path / "level" / SUBNETWORK / file, loaded, file)
    shutil.rmtree(tmp_path / "level")
