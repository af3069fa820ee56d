"""Localising, editing and patching checkpoints: against a bare loop, weightscope and mergekit, all in this run.

The bare loop is the floor: it reads the same tensors as often as lce does, takes |a − b| wherever lce reads both, and
writes as many bytes. Each run has a process of its own, timed after its imports, on files that lie in the page cache;
what is made for it is deleted afterwards. Sides take turns, and the best time of each counts: what is slower, is slowed
down by the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from common import ROOT, apart, machine, peak_memory, report, timed
from safetensors import safe_open
from safetensors.torch import load_file, save_file

BILLIONS = (0.1, 0.3, 0.6, 1.1)
REPEATS = 5
WIDTH = 2048
QUICKSTART = ROOT / "runs/quickstart/seed-0"


def make_checkpoint(folder: Path, billions: float, seed: int) -> None:
    """A decoder's layers in bfloat16, five to a shard."""
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(seed)
    shapes = {f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in "qkvo"}
    shapes |= {"mlp.up_proj": (4 * WIDTH, WIDTH), "mlp.down_proj": (WIDTH, 4 * WIDTH)}
    layers = round(billions * 1e9 / (12 * WIDTH**2))
    files = {}
    for start in range(0, layers, 5):
        tensors = {
            f"model.layers.{layer}.{part}.weight": torch.randn(shape, generator=random).mul_(0.02).bfloat16()
            for layer in range(start, min(start + 5, layers))
            for part, shape in shapes.items()
        }
        name = f"model-{start:05}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        files |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}), encoding="utf-8")


def measured(work: Callable[..., None], *arguments: object) -> tuple[float, int]:
    """Time [s], and peak memory beyond what the process held before [bytes]."""
    torch.set_num_threads(2)
    before = peak_memory()
    return timed(lambda: work(*arguments))[0], peak_memory() - before


def localise(pair: Path, share: float) -> None:
    from lce.commands.checkpoint_editing import run_localize
    from lce.commands.checkpoint_settings import LocalizeSettings

    run_localize(str(pair / "a"), str(pair / "b"), LocalizeSettings(k=share), pair / "selection")


def edit(pair: Path) -> None:
    from lce.commands.checkpoint_editing import run_edit
    from lce.commands.checkpoint_settings import EditSettings

    settings = EditSettings(selection=str(pair / "selection"), patch=str(pair / "patch"), output=str(pair / "edited"))
    run_edit(str(pair / "a"), str(pair / "b"), settings)


def apply(pair: Path) -> None:
    from lce.patch import Patch
    from lce.patch.on_folders import apply_patch

    apply_patch(pair / "a", Patch.load(pair / "patch"), pair / "edited")


def by_lce(name: str, *arguments: object) -> tuple[float, int]:
    import lce.commands.checkpoint_editing

    import lce.patch.on_folders  # noqa: F401

    return measured({"localise": localise, "edit": edit, "apply": apply}[name], *arguments)


def bare_loop(pair: Path, of_both: int, of_one: int, copies: bool, further_bytes: int) -> None:
    """Read both models, and the first one alone, so many times; write a copy of it, and so many bytes."""
    for _ in range(of_both):
        for path in sorted((pair / "a").glob("*.safetensors")):
            with safe_open(path, "pt") as one, safe_open(pair / "b" / path.name, "pt") as other:
                for name in one.keys():  # noqa: SIM118
                    (one.get_tensor(name) - other.get_tensor(name)).abs()
    for last in [False] * (of_one - 1) + [True] * min(1, of_one):
        for path in sorted((pair / "a").glob("*.safetensors")):
            with safe_open(path, "pt") as one, (pair / "floor").open("wb") as file:
                for name in one.keys():  # noqa: SIM118
                    tensor = one.get_tensor(name).clone()
                    if copies and last:
                        file.write(tensor.view(torch.uint8).numpy().data)
            if copies and last:
                (pair / "floor").rename(pair / f"floor-{path.name}")
    block = bytes(1 << 20)
    with (pair / "floor-rest").open("wb") as file:
        for _ in range(further_bytes >> 20):
            file.write(block)


READS = {"localise": (4, 0, False), "edit": (2, 2, True), "apply": (0, 2, True)}
"""How often lce reads both models, and the first alone, and whether it writes a model: for the floor to do the same."""


def clear(pair: Path) -> None:
    shutil.rmtree(pair / "edited", ignore_errors=True)
    for path in pair.glob("floor*"):
        path.unlink()


def scale(pair: Path, share: float) -> dict[str, tuple[float, float, int]]:
    """Per operation: best times [s] of lce and of the bare loop, run in turns, and lce's memory [bytes]."""
    results = {}
    for name, reads in READS.items():
        own, floor = [], []
        for _ in range(REPEATS):
            clear(pair)
            own.append(apart(by_lce, name, pair, *([share] if name == "localise" else [])))
            written = {"localise": "selection", "edit": "patch"}.get(name)
            further = (pair / written).stat().st_size if written else 0
            clear(pair)
            floor.append(apart(measured, bare_loop, pair, *reads, further))
        clear(pair)
        times = [min(time for time, _ in side) for side in (own, floor)]
        results[name] = (*times, max(memory for _, memory in own))
    return results


def row(billions: float, share: float, name: str, own: float, floor: float, memory: int) -> list[str]:
    each = f"{own / billions:.1f}"
    return [
        f"{billions:.1f} G, {share:.1%}", name, f"{own:.2f} s", f"{floor:.2f} s", f"{own / floor:.2f}", each,
        f"{memory / 2**20:,.0f} MiB",
    ]  # fmt: skip


def against_the_floor(folder: Path) -> None:
    rows, curves = [], {}
    for billions in BILLIONS:
        pair = folder / f"pair-{billions}"
        for name, seed in (("a", 0), ("b", 1)):
            make_checkpoint(pair / name, billions, seed)
        for share in (0.1, 0.005) if billions == BILLIONS[-1] else (0.1,):
            results = scale(pair, share)
            rows += [row(billions, share, name, *values) for name, values in results.items()]
            curves |= {(name, billions, share): values for name, values in results.items()}
        shutil.rmtree(pair)
    headings = ["weights, selected", "", "lce", "bare loop", "ratio", "s per G weights", "memory beyond imports"]
    report("two bfloat16 checkpoints", headings, rows)
    plot({(name, billions): values for (name, billions, share), values in curves.items() if share == 0.1})


def plot(curves: dict[tuple[str, float], tuple[float, float, int]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(READS)), READS, strict=True):
        for side, label in enumerate(("lce", "bare loop")):
            axes.plot(BILLIONS, [curves[name, billions][side] for billions in BILLIONS], "o-", label=label)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("billion weights")
        axes.set_xlim(0)
        axes.set_ylim(0)
    figure.axes[0].set_ylabel("seconds")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(ROOT / "docs/scale.png", dpi=150)


def make_bert_pair(folder: Path) -> None:
    """bert-base with random weights, and a copy with 0.5 % of the encoder's weights moved."""
    from transformers import BertConfig, BertForMaskedLM

    from lce.models.layers import prunable_parameters

    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig())
    model.save_pretrained(folder / "a")
    random = torch.Generator().manual_seed(1)
    for weight in prunable_parameters(model).values():
        chosen = torch.randperm(weight.numel(), generator=random)[: round(0.005 * weight.numel())]
        weight.data.view(-1)[chosen] += 0.01
    model.save_pretrained(folder / "b")


def diff_by_lce(pair: Path) -> tuple[float, int]:
    from lce.patch.between import patch_between

    return measured(patch_between, pair / "a", pair / "b", pair / "patch", False)


def apply_by_lce(pair: Path) -> tuple[float, int]:
    import lce.patch.on_folders  # noqa: F401

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
            runs: list[list[tuple[float, int]]] = [[], []]
            for _ in range(REPEATS):
                shutil.rmtree(out, ignore_errors=True)
                for side, work in enumerate(sides):
                    runs[side].append(work())
            peer, own = (min(time for time, _ in side) for side in runs)
            memory = (max(peak for _, peak in side) for side in runs)
            megabytes = [f"{peak / 2**20:,.0f} MiB" if peak else "" for peak in memory]
            rows.append([title, f"{peer:.2f} s", f"{own:.2f} s", f"{peer / own:.1f}", *megabytes])
    assert_same(load_file(pair / "applied.safetensors"), load_file(out / "model.safetensors"), 0)
    headings = ["", "weightscope", "lce", "ratio", "its memory", "lce's memory"]
    report("bert-base in float32, 0.5 % of the encoder's weights changed; memory beyond imports", headings, rows)
    changed = sum(round(0.005 * size) for size in (768 * 768,) * 48 + (768 * 3072,) * 24)
    sizes = [path.stat().st_size / changed for path in (wsp, patch)]
    print(f"bytes a changed weight, without old values: weightscope {sizes[0]:.2f}, lce {sizes[1]:.2f}\n")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() <= tolerance * tensor.abs().max(), name


def interpolate_by_lce(target: Path, reference: Path, out: Path) -> tuple[float, int]:
    from lce.commands.checkpoint_editing import run_edit
    from lce.commands.checkpoint_settings import EditSettings

    settings = EditSettings(
        k=1.0, tensors=["."], strategy="interpolation", alpha=0.25, output=str(out), old_values=False, full_step=False
    )
    return measured(run_edit, str(target), str(reference), settings)


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
    runs: list[list[float]] = [[], []]
    for _ in range(REPEATS):
        for side, work in enumerate((interpolate_by_mergekit, interpolate_by_lce)):
            shutil.rmtree(folder / str(side), ignore_errors=True)
            runs[side].append(apart(work, target, reference, folder / str(side))[0])
    peer, own = map(min, runs)
    merged, edited = (load_file(folder / str(side) / "model.safetensors") for side in (0, 1))
    shared = {name: tensor for name, tensor in merged.items() if name in edited}
    assert_same(shared, {name: edited[name] for name in shared}, 1e-6)
    missing = sorted(set(merged) ^ set(edited))
    headings = ["", "mergekit linear", "lce", "ratio"]
    report(
        "interpolation of all weights of the quickstart's two models, α = 0.25",
        headings,
        [["16 M weights, float32", f"{peer:.2f} s", f"{own:.2f} s", f"{peer / own:.1f}"]],
    )
    print(f"same weights in {len(shared)} tensors, to 1e-6 of the largest; in one model only: {missing or 'none'}\n")


def main() -> None:
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        against_weightscope(Path(folder) / "bert")
        against_mergekit(Path(folder) / "merge")
        against_the_floor(Path(folder))


if __name__ == "__main__":
    main()
