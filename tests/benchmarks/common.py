"""What the benchmarks share: a machine described, a table printed, numbers kept."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests/support")]  # behind, where names of benchmarks are not theirs
Result = TypeVar("Result")
TURNS = 5
BUNDLED = ROOT / "checkpoints/lce-bert-mini"


def machine(device: torch.device) -> str:
    """The processor or card, its threads, and the rate of its float32 matrix products as measured now [GFLOP/s]."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "processor")
        vectors = torch.backends.cpu.get_cpu_capability()
        name = f"{model}, {torch.get_num_threads()} threads, {vectors}"
    return f"{name}; torch {torch.__version__}; matrix products {matrix_rate(device) / 1e9:,.0f} GFLOP/s"


def matrix_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a large product, by the faster route."""
    from lce.models.fast_linear import OneDnnLinear

    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        torch.nn.functional.linear(a, b).sum().item()

    with OneDnnLinear():
        fast = min(timed(product)[0] for _ in range(5))
    return 2 * size**3 / min(fast, *(timed(product)[0] for _ in range(5)))


def operations(model: PreTrainedModel, tokens: float, decoded: float) -> float:
    """Floating-point operations of the matrix products of a forward pass over ``tokens``, ``decoded`` of them."""
    layers = sum(p.numel() for name, p in model.named_parameters() if ".layer" in name and p.ndim == 2)
    return 2 * (tokens * layers + decoded * model.get_output_embeddings().weight.numel())


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Wall time of ``work`` [s], and what it gives."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


@dataclass(frozen=True)
class Turns:
    """Times of lce and of a peer that took turns (A B A B …), so that both meet the machine in the same states [s]."""

    own: list[float]
    peer: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as long the peer took, turn by turn."""
        return [peer / own for own, peer in zip(self.own, self.peer, strict=True)]

    def cells(self) -> list[str]:
        """The peer's and lce's median, and the median ratio with its range, as people write them."""
        return [seconds(median(self.peer)), seconds(median(self.own)), spread(self.ratios)]


PEER_OWN_RATIO = ["peer", "lce", "times as fast (range)"]
"""Headings of `Turns.cells`."""


def in_turns(own: Callable[[], float], peer: Callable[[], float], turns: int = TURNS) -> Turns:
    """Let both sides tell their time in turns, after one turn that does not count."""
    found = [(own(), peer()) for _ in range(1 + turns)][1:]
    return Turns(*map(list, zip(*found, strict=True)))


def spent(work: Callable[[], object]) -> Callable[[], float]:
    """Tells the wall time of ``work`` [s]."""
    return lambda: timed(work)[0]


def seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 0.1 else f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def spread(values: Sequence[float]) -> str:
    """The median, and lowest and highest in brackets."""
    digits = 1 if median(values) >= 3 else 2
    middle, low, high = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def apart(work: Callable[..., Result], *arguments: object) -> Result:
    """What ``work`` gives in a fresh process, so that its memory is its own, once the disk has come to rest."""
    os.sync()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def peak_memory() -> int:
    """The most memory that this process has held so far [bytes]."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def models() -> dict[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    """The bundled model, and one of bert-base's shape with random weights, both with the bundled tokenizer."""
    from lce.models.loading import load_language_model

    bundled, tokenizer = load_language_model(BUNDLED)
    torch.manual_seed(0)
    return {"bundled": (bundled, tokenizer), "bert-base shape": (BertForMaskedLM(BertConfig()), tokenizer)}


def report(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading != headings[0] else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
