from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lce.foundations.errors import LceError
from lce.storage.safetensors_file import TensorWriter, read_header
from lce.storage.torch_bridge import CODES, DTYPES, read_file, read_tensor, to_numpy


def drawn(dtype: torch.dtype, size: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    values = torch.randint(0, 2, (size * dtype.itemsize,), generator=random, dtype=torch.uint8)
    return values.view(dtype)


def test_every_type_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    tensors = {str(dtype): drawn(dtype, 7).view(7, 1) for dtype in DTYPES.values()}
    tensors |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    save_file(tensors, tmp_path / "f", metadata={"format": "pt"})
    metadata, entries = read_header(tmp_path / "f")
    assert metadata == {"format": "pt"}
    for name, tensor in tensors.items():
        entry = entries[name]
        assert (entry.code, entry.shape, entry.nbytes) == (CODES[tensor.dtype], tuple(tensor.shape), tensor.nbytes)
        assert read_tensor(entry).dtype == tensor.dtype
        assert entry.read().tobytes() == to_numpy(tensor).tobytes()
    assert torch.equal(read_tensor(entries["torch.int32"], 2, 5), tensors["torch.int32"].flatten()[2:5])


def test_the_library_reads_what_is_written_and_every_tensor_is_aligned(tmp_path: Path) -> None:
    tensors = {f"{dtype}/{size}": drawn(dtype, size) for size in (3, 0, 5) for dtype in DTYPES.values()}
    with TensorWriter.to(tmp_path / "f") as writer:
        for name, tensor in tensors.items():
            writer.add(name, to_numpy(tensor), CODES[tensor.dtype])
        writer.record = {"kind": "α"}
    found = load_file(tmp_path / "f")
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name].view(torch.uint8), t.view(torch.uint8)) for name, t in tensors.items())
    record, _ = read_file(tmp_path / "f")
    assert record["kind"] == "α"
    assert set(record["digests"]) == set(tensors)
    for entry in read_header(tmp_path / "f")[1].values():
        assert entry.start % entry.type.itemsize == 0
    with safe_open(tmp_path / "f", framework="np") as file:
        assert set(file.metadata()) == {"lce", "lce_sha256"}


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old", encoding="utf-8")

    def fail() -> None:
        with TensorWriter.to(tmp_path / "f") as writer:
            writer.add("a", np.ones(3), "F64")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text(encoding="utf-8") == "old"


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    save_file({"a": torch.ones(100)}, tmp_path / "f")
    entry = read_header(tmp_path / "f")[1]["a"]
    content = (tmp_path / "f").read_bytes()
    (tmp_path / "f").write_bytes(content[:-8])
    with pytest.raises(LceError, match="f: ends within a"):
        entry.read()
    (tmp_path / "f").unlink()
    with pytest.raises(LceError, match="f: cannot be read"):
        entry.read()
