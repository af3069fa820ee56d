from __future__ import annotations

import json
from importlib.metadata import version as lce_version
from pathlib import Path

import pytest
import torch
from architectures import saved
from patches import NAME, POSITIONS, changes_of, literally_applied, model, patch_for, patch_of, record, sha256, weights

import lce
from lce.foundations.errors import LceError
from lce.patch import Patch
from lce.storage.changes import Change


def test_written_and_read_back(tmp_path: Path) -> None:
    base = weights(model())
    patch_for(model(), path=tmp_path / "p")
    patch = Patch.load(tmp_path / "p")
    assert (patch.count, patch.file, patch.has_old, patch.has_full) == (5, tmp_path / "p", True, True)
    assert patch.moved == {name: len(places) for name, places in POSITIONS.items()}
    assert (patch.provenance["target"], patch.provenance["library_version"]) == ("tiny", lce_version("lce"))
    for name, change in changes_of(patch).items():
        old = base[name].flatten()[POSITIONS[name]]
        assert change.indices.tolist() == POSITIONS[name]
        assert change.shape == base[name].shape
        for found, expected in ((change.old, old), (change.new, old + 1), (change.full, old + 0.5)):
            assert torch.equal(found, expected)
        edited = base[name].flatten().index_copy(0, change.indices, old + 1).view_as(base[name])
        about = patch.parameters[name]
        assert (about.sha256, about.sha256_after, about.sha256_old) == (sha256(base[name]), sha256(edited), sha256(old))
    patch_for(model(), path=tmp_path / "q")
    assert (tmp_path / "p").read_bytes() == (tmp_path / "q").read_bytes()


def test_anyone_can_read_it(tmp_path: Path) -> None:
    base = model()
    patch_for(base, path=tmp_path / "p")
    expected = Patch.load(tmp_path / "p").apply(base)
    edited = literally_applied(tmp_path / "p", weights(base))
    assert all(torch.equal(parameter, edited[name]) for name, parameter in expected.named_parameters())
    about = record(tmp_path / "p")
    assert (about["format"], about["version"]) == ("lce-patch", 1)


def test_applying_to_a_model_and_taking_it_back(tmp_path: Path) -> None:
    base = model()
    before = weights(base)
    patch_for(base, path=tmp_path / "p")
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
    changes = {name: Change(c.indices, c.new, c.shape) for name, c in changes_of(patch).items()}
    patch_of(changes, weights(base), path=tmp_path / "p")
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
    patch = patch_of(changes, base, path=tmp_path / "p")
    assert 424_000 < patch.count < 425_000
    assert (tmp_path / "p").stat().st_size / patch.count < 5.6


def test_loading_a_patched_model_in_one_call(tmp_path: Path) -> None:
    base = saved("bert", tmp_path / "base")
    patch_for(base, path=tmp_path / "p")
    edited = lce.from_pretrained(tmp_path / "base", patch=tmp_path / "p")
    assert type(edited) is type(base)
    assert all(torch.equal(p, edited.get_parameter(n)) for n, p in patch_for(base).apply(base).named_parameters())
    config = json.loads((tmp_path / "base/config.json").read_text(encoding="utf-8"))
    (tmp_path / "base/config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}), encoding="utf-8")
    otherwise = lce.from_pretrained(tmp_path / "base", patch=tmp_path / "p")  # by its files
    assert torch.equal(otherwise.get_parameter(NAME), edited.get_parameter(NAME))
    half = lce.from_pretrained(tmp_path / "base", patch=tmp_path / "p", dtype=torch.float16)
    assert torch.equal(half.get_parameter(NAME), edited.get_parameter(NAME).half())
    with pytest.raises(LceError, match="nowhere: no such folder"):
        lce.from_pretrained(tmp_path / "nowhere", patch=tmp_path / "p")
    saved("bert", tmp_path / "other", seed=1)
    with pytest.raises(LceError, match="not the base"):
        lce.from_pretrained(tmp_path / "other", patch=tmp_path / "p")
