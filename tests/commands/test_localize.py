"""Localising on files, against the same thing done in memory with whole models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import MADE
from pairs import DTYPES, flat, marks, matrices, pair
from safetensors.torch import save_file

from lce.cli import main
from lce.localize.selection import Selection
from lce.storage.checkpoint import Checkpoint
from lce.storage.safetensors_file import Entry


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", MADE)
def test_value_based_is_the_exact_top_k(kind: str, dtype: str, chunk: None, tmp_path: Path) -> None:
    target, reference = (matrices(m, tmp_path / "target") for m in pair(kind, tmp_path, DTYPES[dtype]))
    out = tmp_path / "s.safetensors"
    command = [
        "localize",
        str(tmp_path / "target"),
        str(tmp_path / "reference"),
        "--share",
        "0.07",
        "--output",
        str(out),
    ]
    assert main(command) == 0
    difference = (flat(reference) - flat(target)).abs()
    count = round(0.07 * len(difference))
    expected = difference.sort(descending=True, stable=True).indices[:count]
    found = marks(Selection.load(out), list(target)).nonzero().flatten()
    assert torch.equal(found, expected.sort().values)
    assert out.with_suffix(".png").stat().st_size > 5_000


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_shot_masks_are_exact_too(dtype: str, chunk: None, tmp_path: Path) -> None:
    models = pair("llama", tmp_path, DTYPES[dtype])
    target, reference = (matrices(model, tmp_path / "target") for model in models)
    out = tmp_path / "s.safetensors"
    command = ["localize", str(tmp_path / "target"), str(tmp_path / "reference"), "--localization", "mask"]
    assert main([*command, "--sparsity", "0.3", "--output", str(out)]) == 0
    pruned = []
    for weights in (flat(target), flat(reference)):
        smallest = weights.abs().sort(stable=True).indices[: round(0.3 * len(weights))]
        pruned.append(torch.zeros(len(weights), dtype=torch.bool).index_fill_(0, smallest, True))
    assert torch.equal(marks(Selection.load(out), list(target)), pruned[0] ^ pruned[1])


def test_ties_go_to_the_earlier_position(chunk: None, tmp_path: Path) -> None:
    for folder, value in (("a", 0.0), ("b", 1.0)):
        (tmp_path / folder).mkdir()
        tensors = {f"h.{i}.up.weight": torch.full((10, 20), value) for i in range(3)}
        save_file(tensors, tmp_path / folder / "model.safetensors")
    out = tmp_path / "s.safetensors"
    assert main(["localize", str(tmp_path / "a"), str(tmp_path / "b"), "--count", "333", "--output", str(out)]) == 0
    selection = Selection.load(out)
    assert [selection.indices[f"h.{i}.up.weight"].tolist() for i in range(3)] == [
        list(range(200)),
        list(range(133)),
        [],
    ]


def test_no_more_than_a_chunk_of_a_model_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory does not grow with the model."""
    pair("llama", tmp_path)
    for module in ("storage.safetensors_file", "storage.model_weights", "storage.torch_bridge", "patch.on_folders"):
        monkeypatch.setattr(f"lce.{module}.CHUNK", 50)
    monkeypatch.setattr("lce.patch.between.CHUNK", 50)
    counts: list[int] = []
    original = Entry.read

    def read(self: Entry, first: int = 0, last: int | None = None, into: Any = None) -> Any:
        if self.path.parent.name in ("target", "reference"):
            counts.append((self.size if last is None else last) - first)
        return original(self, first, last, into)

    monkeypatch.setattr(Entry, "read", read)
    target, reference, patch = (str(tmp_path / name) for name in ("target", "reference", "p.safetensors"))
    size = max(entry.size for entry in Checkpoint(target).entries.values())
    assert size > 500
    for command in (
        ["localize", target, reference, "--output", str(tmp_path / "s.safetensors")],
        ["edit", target, reference, "--measure", "false", "--output", str(tmp_path / "edit"), "--patch", patch],
        ["patch", "apply", target, "--patch", patch, "--out", str(tmp_path / "out")],
        ["patch", "diff", target, reference, "--out", str(tmp_path / "d.safetensors")],
    ):
        counts.clear()
        assert main(command) == 0
        assert len(counts) > 1
        assert max(counts) <= 50, command
