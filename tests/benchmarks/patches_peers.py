"""Patches and edits against weightscope and mergekit, all in this run.

Each run has a process of its own, timed after its imports, on files that lie in the page cache; what is made for it is
deleted afterwards. Sides take turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import PEER_OWN_RATIO, ROOT, apart, in_turns, machine, report, timed
from patches import apply, measured
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from lce.config import EditSettings
from lce.edit.weight_edit import WeightEdit
from lce.foundations.atomic_files import scratch_folder
from lce.localize.pair import open_pair, select
from lce.models.layers import prunable_parameters
from lce.patch.between import patch_between
from lce.patch.on_folders import apply_patch

QUICKSTART = ROOT / "runs/quickstart/seed-0"


def make_bert_pair(folder: Path) -> None:
    """bert-base with random weights, and a copy with 0.5 % of the encoder's weights moved."""
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig())
    model.save_pretrained(folder / "a")
    random = torch.Generator().manual_seed(1)
    for weight in prunable_parameters(model).values():
        chosen = torch.randperm(weight.numel(), generator=random)[: round(0.005 * weight.numel())]
        weight.data.view(-1)[chosen] += 0.01
    model.save_pretrained(folder / "b")


def diff_by_lce(pair: Path) -> tuple[float, int]:
    return measured(patch_between, pair / "a", pair / "b", pair / "patch", False)


def apply_by_lce(pair: Path) -> tuple[float, int]:
    return measured(apply, pair)


def diff_by_weightscope(pair: Path) -> tuple[float, int]:
    from weightscope.export_patch import export_patch

    return measured(export_patch, str(pair / "a"), str(pair / "b"), pair / "patch.wsp")


def apply_by_weightscope(pair: Path) -> tuple[float, int]:
    from weightscope.apply_patch import apply_patch

    return measured(apply_patch, pair / "patch.wsp", str(pair / "a"), pair / "applied.safetensors")


def from_the_shell(command: str, *arguments: object) -> tuple[float, int]:
    """Time of a command of this environment, start included; its memory is measured apart."""
    line = [str(Path(sys.executable).with_name(command)), *map(str, arguments)]
    os.sync()
    return timed(lambda: subprocess.run(line, check=True, capture_output=True))[0], 0


def against_weightscope(pair: Path) -> None:
    make_bert_pair(pair)
    a, b, wsp, patch, out = (pair / name for name in ("a", "b", "patch.wsp", "patch", "edited"))
    shell = {
        "diff": (
            ("weightscope", "export", a, b, "-o", wsp),
            ("lce", "patch", "diff", a, b, "--out", patch, "--old_values", "false"),
        ),
        "apply": (
            ("weightscope", "apply", wsp, a, "-o", pair / "applied.safetensors"),
            ("lce", "patch", "apply", a, "--patch", patch, "--out", out),
        ),
    }
    inside = {"diff": (diff_by_weightscope, diff_by_lce), "apply": (apply_by_weightscope, apply_by_lce)}
    rows = []
    for name in ("diff", "apply"):
        works: dict[str, tuple[Callable[[], tuple[float, int]], ...]] = {
            f"lce patch {name}": tuple(partial(from_the_shell, *line) for line in shell[name]),
            f"{name}, without start and imports": tuple(partial(apart, work, pair) for work in inside[name]),
        }
        for title, sides in works.items():
            memory = [0, 0]

            def side(
                number: int, sides: tuple[Callable[[], tuple[float, int]], ...] = sides, memory: list[int] = memory
            ) -> float:
                if number == 1:
                    shutil.rmtree(out, ignore_errors=True)
                time, peak = sides[number]()
                memory[number] = max(memory[number], peak)
                return time

            turns = in_turns(partial(side, 1), partial(side, 0))
            megabytes = [f"{peak / 2**20:,.0f} MiB" if peak else "" for peak in memory]
            rows.append([title, *turns.cells(), *megabytes])
    assert_same(load_file(pair / "applied.safetensors"), load_file(out / "model.safetensors"), 0)
    headings = ["", "weightscope", *PEER_OWN_RATIO[1:], "its memory", "lce's memory"]
    report("bert-base in float32, 0.5 % of the encoder's weights changed; memory beyond imports", headings, rows)
    changed = sum(round(0.005 * size) for size in (768 * 768,) * 48 + (768 * 3072,) * 24)
    sizes = [path.stat().st_size / changed for path in (wsp, patch)]
    print(f"bytes a changed weight, without old values: weightscope {sizes[0]:.2f}, lce {sizes[1]:.2f}\n")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() <= tolerance * tensor.abs().max(), name


def interpolated(target: Path, reference: Path, out: Path) -> None:
    settings = EditSettings(share=1.0, tensors=["."])
    pair = open_pair(target, reference, settings)
    with scratch_folder(out) as scratch:
        selection = select(pair, settings, scratch / "selection")
        patch = WeightEdit(selection, *pair, "interpolation", 0.25).patch(scratch / "patch", None, False, False)
        apply_patch(target, patch, out)


def interpolate_by_lce(target: Path, reference: Path, out: Path) -> tuple[float, int]:
    return measured(interpolated, target, reference, out)


def interpolate_by_mergekit(target: Path, reference: Path, out: Path) -> tuple[float, int]:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    shares = [{"model": str(target), "parameters": {"weight": 0.75}}]
    shares.append({"model": str(reference), "parameters": {"weight": 0.25}})
    content = {"merge_method": "linear", "models": shares, "parameters": {"normalize": False}, "dtype": "float32"}
    configuration = MergeConfiguration.model_validate(content)
    return measured(run_merge, configuration, str(out), MergeOptions(quiet=True))


def with_pooler(variant: str, folder: Path) -> Path:
    """A copy of a quickstart model with a pooler of ones, without which mergekit takes no BERT."""
    source = QUICKSTART / variant / "sparsity-00"
    (folder / variant).mkdir(parents=True)
    shutil.copy(source / "config.json", folder / variant)
    tensors = load_file(source / "model.safetensors")
    size = tensors["bert.embeddings.LayerNorm.bias"].shape
    tensors |= {"bert.pooler.dense.weight": torch.ones(*size, *size), "bert.pooler.dense.bias": torch.ones(size)}
    save_file(tensors, folder / variant / "model.safetensors", metadata={"format": "pt"})
    return folder / variant


def against_mergekit(folder: Path) -> None:
    """The same interpolation of all weights: mergekit's only granularity, lce's densest."""
    target, reference = (with_pooler(variant, folder) for variant in ("stereotypical", "anti-stereotypical"))

    def side(number: int) -> float:
        shutil.rmtree(folder / str(number), ignore_errors=True)
        work = (interpolate_by_mergekit, interpolate_by_lce)[number]
        return apart(work, target, reference, folder / str(number))[0]

    turns = in_turns(partial(side, 1), partial(side, 0))
    merged, edited = (load_file(folder / str(side) / "model.safetensors") for side in (0, 1))
    shared = {name: tensor for name, tensor in merged.items() if name in edited}
    assert_same(shared, {name: edited[name] for name in shared}, 1e-6)
    missing = sorted(set(merged) ^ set(edited))
    headings = ["", "mergekit linear", *PEER_OWN_RATIO[1:]]
    title = "interpolation of all weights of the quickstart's two models, α = 0.25"
    report(title, headings, [["16 M weights, float32", *turns.cells()]])
    print(f"same weights in {len(shared)} tensors, to 1e-6 of the largest; in one model only: {missing or 'none'}\n")


def main() -> None:
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        against_weightscope(Path(folder) / "bert")
        against_mergekit(Path(folder) / "merge")


if __name__ == "__main__":
    main()
