from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import MADE, saved
from patches import files

from lce.foundations.errors import LceError
from lce.patch.between import patch_between
from lce.patch.on_folders import apply_patch, revert_patch
from lce.storage.torch_bridge import read_tensors, tensor_digest


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", MADE)
def test_diff_finds_every_changed_bit(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "a", dtype=dtype)
    changed = 0
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            if i % 2:
                some = parameter.view(-1)[70 * (i % 3 == 0) :: i + 1]  # not always in the first chunk
                some.neg_()  # a zero only turns its sign
                changed += len(some)
    model.save_pretrained(tmp_path / "b", max_shard_size="6KB")
    patch = patch_between(tmp_path / "a", tmp_path / "b", tmp_path / "p")
    assert patch.count == changed
    apply_patch(tmp_path / "a", patch, tmp_path / "c")
    for name, tensor in read_tensors(tmp_path / "c", patch.parameters).items():
        assert torch.equal(tensor.view(torch.uint8), model.get_parameter(name).view(torch.uint8))
        assert tensor_digest(tensor) == patch.parameters[name].sha256_after
    revert_patch(tmp_path / "c", patch, tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "a")
    with pytest.raises(LceError, match="same weights"):
        patch_between(tmp_path / "a", tmp_path / "a", tmp_path / "q")
    assert not (tmp_path / "q").exists()


def test_diff_of_what_cannot_be_compared(tmp_path: Path) -> None:
    saved("llama", tmp_path / "a")
    saved("llama", tmp_path / "half", dtype=torch.float16)
    saved("gpt2", tmp_path / "other")
    for folder, message in (("half", r"is F32 in .*, F16 in .*; a patch keeps the type"), ("other", "only .*a has ")):
        with pytest.raises(LceError, match=message):
            patch_between(tmp_path / "a", tmp_path / folder, tmp_path / "p")
