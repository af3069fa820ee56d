from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import saved
from patches import NAME, literally_applied, model, patch_for, record, weights

import lce
from lce.foundations.errors import LceError
from lce.patch import Patch
from lce.patch.on_modules import Tensors
from lce.storage.changes import Change


def test_saved_and_read_back(tmp_path: Path) -> None:
    patch = patch_for(model())
    patch.save(tmp_path / "p")
    read = Patch.load(tmp_path / "p")
    known = {name: replace(about, sha256_old=None) for name, about in read.parameters.items()}
    assert (known, read.count, read.provenance) == (patch.parameters, 5, patch.provenance)
    assert (read.base_fingerprint, read.has_old, read.has_full) == (patch.base_fingerprint, True, True)
    for name, change in patch.changes.items():
        for part in ("indices", "new", "old", "full"):
            assert np.array_equal(getattr(read.changes[name], part), getattr(change, part))
    assert (tmp_path / "p").read_bytes() == (read.save(tmp_path / "q"), (tmp_path / "q").read_bytes())[1]


def test_anyone_can_read_it(tmp_path: Path) -> None:
    base = model()
    patch_for(base).save(tmp_path / "p")
    expected = Patch.load(tmp_path / "p").apply(base)
    edited = literally_applied(tmp_path / "p", weights(base))
    assert all(torch.equal(parameter, edited[name]) for name, parameter in expected.named_parameters())
    about = record(tmp_path / "p")
    assert (about["format"], about["version"]) == ("lce-patch", 1)


def test_applying_to_a_model_and_taking_it_back(tmp_path: Path) -> None:
    base = model()
    before = weights(base)
    patch_for(base).save(tmp_path / "p")
    patch = Patch.load(tmp_path / "p")
    edited = patch.apply(base)
    assert all(torch.equal(p, before[name]) for name, p in base.named_parameters()), "the input is not mutated"
    assert sum(int((p != before[name]).sum()) for name, p in edited.named_parameters()) == 5
    with pytest.raises(LceError, match="applied already"):
        patch.apply(edited)
    with pytest.raises(LceError, match="patch is not applied"):
        patch.revert_(base)
    patch.apply_(base)
    assert all(torch.equal(p, edited.get_parameter(name)) for name, p in base.named_parameters())
    patch.revert_(base)
    assert all(torch.equal(p, before[name]) for name, p in base.named_parameters())


def test_one_other_weight_in_a_touched_parameter_is_enough() -> None:
    base = model()
    patch = patch_for(base)
    with torch.no_grad():
        base.get_parameter(NAME).view(-1)[50] += 1
    with pytest.raises(LceError, match="not the base of this patch"):
        patch.apply(base)
    with pytest.raises(LceError, match="F16"):
        patch.apply(model().half())


def test_a_patch_without_old_values_cannot_be_reverted(tmp_path: Path) -> None:
    base = model()
    patch = patch_for(base)
    changes = {name: Change(c.indices, c.new, c.shape) for name, c in Tensors(patch).items()}
    Patch.create(changes, weights(base), {}).save(tmp_path / "p")
    small = Patch.load(tmp_path / "p")
    assert (small.has_old, small.has_full) == (False, False)
    edited = small.apply(base)
    assert all(torch.equal(p, edited.get_parameter(name)) for name, p in patch.apply(base).named_parameters())
    with pytest.raises(LceError, match="without the old values"):
        small.revert_(edited)


def test_fewer_bytes_a_weight_than_weightscope(tmp_path: Path) -> None:
    """0.5 % of the weights of bert-base's encoder, drawn at random, in float32; weightscope's file takes 7.0 bytes."""
    random = torch.Generator().manual_seed(0)
    shapes = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]
    base, changes = {}, {}
    for layer in range(12):
        for i, shape in enumerate(shapes):
            name = f"bert.encoder.layer.{layer}.part{i}.weight"
            base[name] = torch.randn(shape, generator=random)
            size = base[name].numel()
            indices = torch.randperm(size, generator=random)[: round(0.005 * size)].sort().values
            changes[name] = Change(indices, torch.randn(len(indices), generator=random), shape)
    patch = Patch.create(changes, base, {})
    patch.save(tmp_path / "p")
    assert 424_000 < patch.count < 425_000
    assert (tmp_path / "p").stat().st_size / patch.count < 5.6


def test_loading_a_patched_model_in_one_call(tmp_path: Path) -> None:
    base = saved("bert", tmp_path / "base")
    patch_for(base).save(tmp_path / "p")
    edited = lce.from_pretrained(tmp_path / "base", patch=tmp_path / "p")
    assert type(edited) is type(base)
    assert all(torch.equal(p, edited.get_parameter(n)) for n, p in patch_for(base).apply(base).named_parameters())
    half = lce.from_pretrained(tmp_path / "base", patch=tmp_path / "p", dtype=torch.float16)
    assert torch.equal(half.get_parameter(NAME), edited.get_parameter(NAME).half())
    with pytest.raises(LceError, match="nowhere: no such folder"):
        lce.from_pretrained(tmp_path / "nowhere", patch=tmp_path / "p")
    saved("bert", tmp_path / "other", seed=1)
    with pytest.raises(LceError, match="not the base"):
        lce.from_pretrained(tmp_path / "other", patch=tmp_path / "p")
