"""Thousands of mutants of a real patch file: each is refused in one line, or does exactly what it says."""

from __future__ import annotations

import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import saved
from hypothesis import given, settings
from hypothesis import strategies as st
from patches import literally_applied, patch_for
from safetensors.torch import load_file

from lce.errors import LceError
from lce.patch import Patch
from lce.patch.algebra import compose
from lce.patch.folders import apply_patch
from lce.patch.page import write_page
from lce.patch.scaling import scale
from lce.patch.text import describe


@st.composite
def mutants(draw: st.DrawFn, content: bytes) -> bytes:
    """A real patch file with bytes changed, cut, put in or moved, or with another number in its header."""
    data = bytearray(content)
    length = struct.unpack("<Q", content[:8])[0]
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, 7) | st.integers(8, 7 + length) | st.integers(8 + length, len(content) - 1))
        place = min(place, len(data) - 1)
        kind = draw(st.sampled_from(["flip", "set", "cut", "insert", "digit", "truncate"]))
        if kind == "flip":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 16))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "digit":
            digits = [i for i in range(8, min(8 + length, len(data))) if chr(data[i]).isdigit()]
            if digits:
                data[digits[draw(st.integers(0, len(digits) - 1))]] = ord(str(draw(st.integers(0, 9))))
        else:
            del data[place + 1 :]
        if not data:
            break
    return bytes(data)


def test_every_mutant_is_refused_or_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lce.patch.page.heat_map", lambda *_: None)  # drawing takes most of the time
    monkeypatch.setattr("lce.patch.page.as_svg", lambda _: "")
    folder = tmp_path
    patch_for(saved("bert", folder / "model")).save(folder / "p")
    mutant, out, side = folder / "mutant", folder / "mutated", folder / "side"
    mutant.touch()
    present = {path.name for path in folder.iterdir()}
    good, base = Patch.load(folder / "p"), load_file(folder / "model/model.safetensors")
    fates: Counter[str] = Counter()

    def applied(patch: Patch) -> None:
        apply_patch(folder / "model", patch, out)
        found = load_file(out / "model.safetensors")
        assert all(torch.equal(found[name], tensor) for name, tensor in literally_applied(mutant, base).items())

    uses: list[Callable[[Patch], Any]] = [
        applied,
        lambda patch: write_page(side, patch, "mutant", 1),
        lambda patch: describe(patch, 1),
        lambda patch: compose(patch, good, side, "first"),
        lambda patch: scale(patch, 3.0, side),
    ]

    @settings(max_examples=4000)
    @given(content=mutants((folder / "p").read_bytes()))
    def meets_its_fate(content: bytes) -> None:
        mutant.write_bytes(content)
        fates["all"] += 1
        try:
            patch = Patch.load(mutant)
        except LceError as refusal:
            fates["refused, in one line"] += "\n" not in str(refusal)
        else:
            fates["loaded"] += 1
            for use in uses:
                try:
                    use(patch)
                    fates["used"] += 1
                except LceError as refusal:
                    fates["refused in use"] += "\n" not in str(refusal)
                side.unlink(missing_ok=True)
                shutil.rmtree(out, ignore_errors=True)
        assert {path.name for path in folder.iterdir()} == present, "nothing outside of the output is touched"

    meets_its_fate()
    assert fates["refused, in one line"] + fates["loaded"] == fates["all"] >= 4000
    assert fates["used"] + fates["refused in use"] == len(uses) * fates["loaded"]
    assert fates["refused, in one line"] > 1000
    assert fates["used"] > 200
