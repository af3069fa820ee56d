"""What the benchmarks share: a machine described, a table printed, numbers kept."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests/support")]  # behind, where names of benchmarks are not theirs
Result = TypeVar("Result")
BUNDLED = ROOT / "checkpoints/lce-bert-mini"


def machine(device: torch.device) -> str:
    """The processor or card, its threads, and the rate of its float32 matrix products as measured now [GFLOP/s]."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "processor")
        name = f"{model}, {torch.get_num_threads()} threads"
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
