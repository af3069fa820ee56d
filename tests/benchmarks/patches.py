"""Localising, editing and patching checkpoints of growing size, against a bare loop in the same run.

The bare loop is the floor: it reads the same tensors as often as lce does, takes |a − b| wherever lce reads both, and
writes as many bytes. Each run has a process of its own, timed after its imports, on files that lie in the page cache;
what is made for it is deleted afterwards. Sides take turns.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from common import PEER_OWN_RATIO, ROOT, Turns, apart, in_turns, machine, peak_memory, report, timed
from safetensors import safe_open
from safetensors.torch import save_file

from lce.config import EditSettings
from lce.edit.weight_edit import WeightEdit
from lce.localize.heat_map import save_heat_map
from lce.localize.pair import open_pair, select
from lce.localize.selection import Selection
from lce.patch import Patch
from lce.patch.on_folders import apply_patch, new_output, write_patched
from lce.storage.checkpoint import Checkpoint

BILLIONS = (0.1, 0.3, 0.6, 1.1)
WIDTH = 2048


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
    settings = EditSettings(share=share)
    selection = select(open_pair(pair / "a", pair / "b", settings), settings, pair / "selection")
    save_heat_map(selection, pair / "selection.png")


def edit(pair: Path) -> None:
    selection = Selection.load(pair / "selection")
    edited = WeightEdit(selection, *open_pair(pair / "a", pair / "b", None, selection), alpha=2.0)
    target = Checkpoint(pair / "a")
    with new_output(target, pair / "edited") as folder:
        write_patched(target, edited.patch(pair / "patch"), folder)


def apply(pair: Path) -> None:
    apply_patch(pair / "a", Patch.load(pair / "patch"), pair / "edited")


def by_lce(name: str, *arguments: object) -> tuple[float, int]:
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


READS = {"localise": (3, 0, False), "edit": (2, 2, True), "apply": (0, 2, True)}
"""How often lce reads both models, and the first alone, and whether it writes a model: for the floor to do the same."""


def clear(pair: Path) -> None:
    shutil.rmtree(pair / "edited", ignore_errors=True)
    for path in pair.glob("floor*"):
        path.unlink()


def scale(pair: Path, share: float) -> dict[str, tuple[Turns, int]]:
    """Per operation: the times of lce and of the bare loop, and lce's memory [bytes]."""
    results = {}
    for name, reads in READS.items():
        memory = [0]

        def own(name: str = name, memory: list[int] = memory) -> float:
            clear(pair)
            time, peak = apart(by_lce, name, pair, *([share] if name == "localise" else []))
            memory.append(peak)
            return time

        def floor(name: str = name, reads: tuple[int, int, bool] = reads) -> float:
            clear(pair)
            written = {"localise": "selection", "edit": "patch"}.get(name)
            return apart(measured, bare_loop, pair, *reads, (pair / written).stat().st_size if written else 0)[0]

        results[name] = in_turns(own, floor), max(memory)
        clear(pair)
    return results


def row(billions: float, share: float, name: str, turns: Turns, memory: int) -> list[str]:
    each = f"{median(turns.own) / billions:.1f}"
    return [f"{billions:.1f} G, {share:.1%}", name, *turns.cells(), each, f"{memory / 2**20:,.0f} MiB"]


def against_the_floor(folder: Path) -> None:
    rows, curves = [], {}
    for billions in BILLIONS:
        pair = folder / f"pair-{billions}"
        for name, seed in (("a", 0), ("b", 1)):
            make_checkpoint(pair / name, billions, seed)
        for share in (0.1, 0.005) if billions == BILLIONS[-1] else (0.1,):
            for name, (turns, memory) in scale(pair, share).items():
                curves[name, billions, share] = turns
                rows.append(row(billions, share, name, turns, memory))
                print(" | ".join(rows[-1]), flush=True)
        shutil.rmtree(pair)
    headings = ["weights, selected", "", "bare loop", *PEER_OWN_RATIO[1:], "s per G weights", "memory beyond imports"]
    report("two bfloat16 checkpoints", headings, rows)
    plot({(name, billions): turns for (name, billions, share), turns in curves.items() if share == 0.1})


def plot(curves: dict[tuple[str, float], Turns]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(READS)), READS, strict=True):
        for side, label in (("own", "lce"), ("peer", "bare loop")):
            times = [median(getattr(curves[name, billions], side)) for billions in BILLIONS]
            axes.plot(BILLIONS, times, "o-", label=label)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("billion weights")
        axes.set_xlim(0)
        axes.set_ylim(0)
    figure.axes[0].set_ylabel("seconds")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(ROOT / "docs/scale.png", dpi=150)


def main() -> None:
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        against_the_floor(Path(folder))


if __name__ == "__main__":
    main()
