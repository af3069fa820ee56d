"""Thousands of mutants of real patches: each is refused in one line, or does what the patch itself does."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from architectures import saved
from file_mutants import KINDS, mutant
from patches import patch_of
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from lce.foundations.errors import LceError
from lce.patch import Patch
from lce.patch.compose import compose
from lce.patch.on_folders import apply_patch, revert_patch
from lce.patch.page import write_page
from lce.patch.peft import to_peft
from lce.patch.scale import scale
from lce.patch.text import describe
from lce.storage.changes import Change, step

MUTANTS = 10_000 if os.environ.get("LCE_FUZZ") == "all" else 2_000


@dataclass
class Made:
    """A model, a patch for it, and what the patch is used for, each with what comes of it: bytes, or a refusal."""

    file: Path
    uses: dict[str, Callable[[Path], bytes]]
    expected: dict[str, bytes | None]


def a_patch(model: PreTrainedModel, alpha: float, names: list[str], path: Path, **kept: bool) -> Patch:
    """Moves every seventh weight of the parameters ``names``, and one far away from the others."""
    base = {name: parameter.detach() for name, parameter in model.named_parameters()}
    changes = {}
    for name in names:
        size = base[name].numel()
        indices = torch.unique(torch.cat([torch.arange(0, min(size, 300), 7), torch.tensor([size - 1])]))
        old = base[name].flatten()[indices]
        full = (old.float() + 0.5).to(old.dtype)
        changes[name] = Change(indices, step(old, full, alpha), tuple(base[name].shape), old, full)
    about = {"strategy": "extrapolation", "alpha": alpha, "localization": "value"}
    return patch_of(changes, base, about, path, **kept)


CASES: dict[str, tuple[str, torch.dtype, list[str], bool, bool]] = {
    "float32, several parameters": ("bert", torch.float32, ["encoder.layer.1.output.dense", "self.key"], True, True),
    "without old values": ("bert", torch.float32, ["encoder.layer.1.output.dense", "self.key"], False, True),
    "without old values and full step": ("llama", torch.float32, ["mlp.up_proj"], False, False),
    "bfloat16": ("llama", torch.bfloat16, ["mlp.up_proj", "self_attn.q_proj"], True, True),
    "float16, Conv1D": ("gpt2", torch.float16, ["h.0.attn.c_attn"], True, True),
    "tied weights": ("qwen2", torch.float32, ["embed_tokens"], True, True),
    "scaled, its result unknown": ("llama", torch.float32, ["mlp.down_proj"], True, True),
}
"""Kind of model, its type, parts of the parameters' names, and whether old values and full step are kept."""


def made(case: str, folder: Path) -> Made:
    kind, dtype, parts, keep_old, keep_full = CASES[case]
    model = saved(kind, folder / "model", dtype=dtype)
    names = [name for part in parts for name in dict(model.named_parameters()) if f"{part}.weight" in name][:3]
    file, second = folder / "p.safetensors", folder / "second.safetensors"
    a_patch(model, 2.0, names, file, keep_old=keep_old, keep_full=keep_full)
    if "scaled" in case:
        scale(Patch.load(file), 3.0, folder / "scaled.safetensors")
        (folder / "scaled.safetensors").replace(file)
    apply_patch(folder / "model", Patch.load(file), folder / "patched")
    a_patch(model, -1.0, [*names, "model.norm.weight"] if kind == "llama" else names, second)
    auto = AutoModelForMaskedLM if kind == "bert" else AutoModelForCausalLM
    patched = auto.from_pretrained(folder / "patched", dtype=dtype)
    out, side = folder / "out", folder / "side"

    def weights(edited: Any) -> bytes:
        return b"".join(p.detach().flatten().view(torch.uint8).numpy().tobytes() for p in edited.parameters())

    def by_file(path: Path) -> bytes:
        apply_patch(folder / "model", Patch.load(path), out)
        return (out / "model.safetensors").read_bytes()

    def in_place(path: Path) -> bytes:
        before = weights(model)
        try:
            Patch.load(path).apply_(model)
            return weights(model)
        finally:
            if weights(model) != before:
                Patch.load(file).revert_(model) if keep_old else restore(model)

    original = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def restore(edited: PreTrainedModel) -> None:
        for name, parameter in edited.named_parameters():
            parameter.copy_(original[name])

    def reverted_by_file(path: Path) -> bytes:
        revert_patch(folder / "patched", Patch.load(path), out)
        return (out / "model.safetensors").read_bytes()

    def reverted(path: Path) -> bytes:
        before = weights(patched)
        try:
            Patch.load(path).revert_(patched)
            return weights(patched)
        finally:
            if weights(patched) != before:
                Patch.load(file).apply_(patched)

    def scaled(path: Path) -> bytes:
        scale(Patch.load(path), 0.5, side)
        return side.read_bytes()

    def composed(path: Path) -> bytes:
        compose(Patch.load(path), Patch.load(second), side, "first")
        return side.read_bytes()

    def exported(path: Path) -> bytes:
        to_peft(Patch.load(path), folder / "model", out)
        return (out / "adapter_model.safetensors").read_bytes()

    def shown(path: Path) -> bytes:
        write_page(side, Patch.load(path), "a patch", 1)
        return side.read_bytes() + describe(Patch.load(path), 1).encode()

    def verified(path: Path) -> bytes:
        patch = Patch.load(path)
        return "".join(patch.verify(folder / name) for name in ("model", "patched")).encode()

    uses = {
        "apply by file": by_file,
        "apply in memory": lambda path: weights(Patch.load(path).apply(model)),
        "apply in place": in_place,
        "revert by file": reverted_by_file,
        "revert in memory": reverted,
        "verify": verified,
        "scale": scaled,
        "compose": composed,
        "export to PEFT": exported,
        "show": shown,
    }
    result = Made(file, uses, {})
    for name, use in uses.items():
        result.expected[name] = outcome(use, file)
        tidy(folder)
    return result


def outcome(use: Callable[[Path], bytes], path: Path) -> bytes | None:
    """What comes of a use; None if it is refused, which has to be said in one line."""
    try:
        return use(path)
    except LceError as refusal:
        check_one_line(refusal)
        return None


def check_one_line(refusal: LceError) -> None:
    assert "\n" not in str(refusal)


def tidy(folder: Path) -> None:
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "side").unlink(missing_ok=True)


@pytest.mark.parametrize("case", CASES)
def test_no_mutant_does_anything_else_than_the_patch(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lce.patch.page.heat_map", lambda *_: None)  # drawing takes most of the time
    monkeypatch.setattr("lce.patch.page.as_svg", lambda _: "")
    logging.getLogger("lce").setLevel(logging.ERROR)
    patch = made(case, tmp_path)
    content, path = patch.file.read_bytes(), tmp_path / "mutant.safetensors"
    path.touch()
    present = {entry.name for entry in tmp_path.iterdir()}
    random = Random(case)
    fates: Counter[str] = Counter()
    for number in range(-(-MUTANTS // len(CASES))):
        kind = KINDS[number % len(KINDS)]
        path.write_bytes(mutant(content, kind, random))
        fates["mutants"] += 1
        try:
            Patch.load(path)
        except LceError as refusal:
            check_one_line(refusal)
            fates["refused"] += 1
            continue
        for name, use in patch.uses.items():
            found = outcome(use, path)
            assert found is None or found == patch.expected[name], f"{kind}: {name} gives something else"
            fates["identical" if found == patch.expected[name] else "refused in use"] += 1
            tidy(tmp_path)
        assert {entry.name for entry in tmp_path.iterdir()} == present, "nothing outside of the output is touched"
    logging.getLogger("lce").setLevel(logging.INFO)
    print(f"{case}: {dict(fates)}")
    assert fates["mutants"] >= MUTANTS / len(CASES)
    assert fates["refused"] > fates["mutants"] / 2
    assert fates["identical"], "some mutations, of spaces, say, are none"
    assert sum(result is not None for result in patch.expected.values()) >= 4
