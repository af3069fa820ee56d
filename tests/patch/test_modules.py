"""Models in memory are patched, checked and compared as folders are: the same answers, the same refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import MADE, saved
from patches import NAME, OTHER, changes_of, model, patch_for, patch_of, weights

from lce.foundations.errors import LceError
from lce.patch.between import patch_between
from lce.patch.on_folders import apply_patch


def test_verify_tells_base_and_patched() -> None:
    base = model()
    patch = patch_for(base)
    edited = patch.apply(base)
    assert [patch.verify(one) for one in (base, edited)] == ["base", "patched"]
    lean = patch_of(changes_of(patch), weights(base), keep_old=False)
    assert [lean.verify(one) for one in (base, edited)] == ["base", "patched"]
    patch.revert_(edited)
    assert patch.verify(edited) == "base"


def test_verify_refuses_what_is_neither() -> None:
    base = model()
    patch = patch_for(base)
    half = patch.apply(base)
    with torch.no_grad():
        half.get_parameter(OTHER).copy_(base.get_parameter(OTHER))
    with pytest.raises(LceError, match="BertForMaskedLM: has the patch applied in some of its parameters only"):
        patch.verify(half)
    with torch.no_grad():
        half.get_parameter(NAME).view(-1)[50] += 1
    with pytest.raises(LceError, match=f"BertForMaskedLM: its {NAME} is neither the patch's base nor"):
        patch.verify(half)
    with pytest.raises(LceError, match=r"F16 .* it is not the base of this patch"):
        patch.verify(base.half())


def test_a_folder_is_verified_as_the_model_in_it_is(tmp_path: Path) -> None:
    base = saved("bert", tmp_path / "model")
    patch = patch_for(base)
    apply_patch(tmp_path / "model", patch, tmp_path / "patched")
    assert [patch.verify(tmp_path / name) for name in ("model", "patched")] == ["base", "patched"]
    half = patch.apply(base)
    with torch.no_grad():
        half.get_parameter(OTHER).copy_(base.get_parameter(OTHER))
    half.save_pretrained(tmp_path / "half")
    refusals = []
    for one in (half, tmp_path / "half"):
        with pytest.raises(LceError) as refusal:
            patch.verify(one)
        refusals.append(str(refusal.value).partition(": ")[2])
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", MADE)
def test_a_patch_between_models_is_that_between_their_folders(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    one, other = (saved(kind, tmp_path / name, dtype=dtype) for name in "ab")
    with torch.no_grad():
        for i, parameter in enumerate(other.parameters()):
            if i % 2:
                parameter.view(-1)[:: i + 1].neg_()
    other.save_pretrained(tmp_path / "b")
    expected = patch_between(tmp_path / "a", tmp_path / "b", tmp_path / "expected")
    for before, after in ((one, other), (one, tmp_path / "b"), (tmp_path / "a", other)):
        patch = patch_between(before, after, tmp_path / "p")
        assert patch.parameters == expected.parameters
        for name, change in expected.changes.items():
            found = patch.changes[name]
            for part in ("indices", "new", "old"):
                assert getattr(found, part).tobytes() == getattr(change, part).tobytes()
    edited = patch.apply(one)
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter.view(torch.uint8), edited.get_parameter(name).view(torch.uint8))


def test_models_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    one = model()
    for other, message in (
        (model(), "BertForMaskedLM and BertForMaskedLM: have the same weights"),
        (model().half(), r"is F32 in BertForMaskedLM, F16 in BertForMaskedLM; a patch keeps the type"),
        (torch.nn.Linear(2, 3), "only BertForMaskedLM has "),
    ):
        with pytest.raises(LceError, match=message):
            patch_between(one, other, tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_a_matrix_whose_memory_is_not_contiguous() -> None:
    """As some libraries leave a weight that they transpose."""
    base = model()
    expected = patch_for(base).apply(base)
    with torch.no_grad():
        weight = base.get_parameter(NAME)
        weight.set_(weight.t().contiguous().t())
    patch = patch_for(base)
    patch.apply_(base)
    assert not base.get_parameter(NAME).is_contiguous()
    assert torch.equal(base.get_parameter(NAME), expected.get_parameter(NAME))
    assert patch.verify(base) == "patched"
