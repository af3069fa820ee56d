"""What iterative magnitude pruning costs beside training: exact global threshold, masking of each step, saving.

The threshold is found over the weight matrices of bert-base's encoder (85 M), against PyTorch's global pruning and
`kthvalue`. Each method runs in a process of its own, so that its peak memory is its own; they take turns.
"""

from __future__ import annotations

import resource
import tempfile
import threading
from pathlib import Path
from statistics import median

import torch
from common import TURNS, apart, machine, models, report, seconds, spread, timed
from torch import nn
from torch.nn.utils import prune
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lce.models.layers import prunable_parameters
from lce.models.logits import logits_at
from lce.storage.masks import Mask, magnitude_prune
from lce.training.module import MaskedLanguageModel
from lce.training.pruning.imp import save_level
from lce.training.pruning.mask_callback import MaskCallback

SPARSITY = 0.3
BATCH, LENGTH = 32, 27
ROUND = {"bundled": 500, "bert-base shape": 13_881}
"""Steps of a round: the quickstart's, and the paper's."""


def matrices() -> list[nn.Linear]:
    """Linear modules of bert-base's twelve layers."""
    torch.manual_seed(0)
    shapes = [(768, 768)] * 4 + [(768, 3072), (3072, 768)]
    return [nn.Linear(a, b, bias=False) for _ in range(12) for a, b in shapes]


def by_lce(layers: list[nn.Linear]) -> int:
    weights = {str(i): layer.weight for i, layer in enumerate(layers)}
    return magnitude_prune(weights, Mask.dense(weights), SPARSITY).pruned


def by_torch(layers: list[nn.Linear]) -> int:
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=SPARSITY)
    return sum(int((layer.weight_mask == 0).sum()) for layer in layers)


@torch.no_grad()
def by_kthvalue(layers: list[nn.Linear]) -> int:
    flat = torch.cat([layer.weight.abs().flatten() for layer in layers])
    threshold = flat.kthvalue(round(SPARSITY * len(flat))).values
    return sum(int((layer.weight.abs() <= threshold).sum()) for layer in layers)


METHODS = {"lce": by_lce, "torch.nn.utils.prune": by_torch, "kthvalue": by_kthvalue}


def resident() -> int:
    """Memory of this process [bytes]."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measured(name: str) -> tuple[float, int, float]:
    """Time [s], number of pruned weights, and peak memory beyond the weights, as a share of the weights."""
    layers = matrices()
    size = sum(layer.weight.numel() * 4 for layer in layers)
    before, highest, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    took, pruned = timed(lambda: METHODS[name](layers))
    done.set()
    watcher.join()
    return took, pruned, max(0, highest[0] - before) / size


def overhead(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Shares of a round that go to masking, the threshold and saving."""
    parameters = prunable_parameters(model)
    mask = magnitude_prune(parameters, Mask.dense(parameters), SPARSITY)
    callback = MaskCallback(mask)
    module = MaskedLanguageModel(model)
    callback.on_fit_start(None, module)
    ids = torch.randint(1000, 20_000, (BATCH, LENGTH))
    positions = torch.arange(0, BATCH * LENGTH, 7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        logits = logits_at(model, ids, torch.ones_like(ids), positions)
        nn.functional.cross_entropy(logits, ids.flatten()[positions]).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    training, masking = (min(timed(work)[0] for _ in range(5)) for work in (step, lambda: callback.clear_(module)))
    threshold, _ = timed(lambda: magnitude_prune(parameters, Mask.dense(parameters), SPARSITY))
    with tempfile.TemporaryDirectory() as folder:
        saving, _ = timed(lambda: save_level(Path(folder) / "level", model, tokenizer, mask, parameters, {}))
    steps = ROUND[name]
    share = (steps * masking + threshold + saving) / (steps * (training + masking) + threshold + saving)
    times = [f"{training * 1e3:.0f} ms", f"{masking * 1e3:.2f} ms", f"{threshold:.2f} s", f"{saving:.2f} s"]
    return [f"{name}, {steps:,} steps", *times, f"{share:.2%}"]


def main() -> None:
    print(machine(torch.device("cpu")))
    turns = [{name: apart(measured, name) for name in METHODS} for _ in range(TURNS)]
    rows = []
    for name in METHODS:
        times, pruned, extra = zip(*(turn[name] for turn in turns), strict=True)
        ratios = [turn[name][0] / turn["lce"][0] for turn in turns]
        rows.append([name, seconds(median(times)), spread(ratios), f"{max(extra):.2f}", f"{pruned[0]:,}"])
    about = "extra memory [copies of the weights]"
    headings = ["global threshold over 85 M weights", "time", "to lce's (range)", about, "pruned"]
    report("one-shot magnitude pruning to 30 %", headings, rows)
    headings = ["iterative magnitude pruning", "training step", "masking", "threshold", "saving", "share of a round"]
    report("its cost beside training", headings, [overhead(name, *loaded) for name, loaded in models().items()])


if __name__ == "__main__":
    main()
