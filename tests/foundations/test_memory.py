"""Freed memory is used again, in a process of its own, because it is told once for all."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

CODE = """
import resource, torch
from lce.foundations.memory import keep_freed_memory
{before}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    torch.ones(12_500_000)
for _ in range(20):  # the heap takes its shape
    work()
start = faults()
for _ in range(20):
    work()
print((faults() - start) * 4096 // 50_000_000)
"""
KEEP = "keep_freed_memory()"


def set_up_again(before: str, **environment: str) -> int:
    """How often the memory of a block of 50 MB is set up anew in 20 uses, after as many others."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", CODE.format(before=before)]
    done = subprocess.run(
        command, env=known | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_unless_the_user_says_otherwise() -> None:
    assert set_up_again("") >= 15
    assert set_up_again(KEEP) <= 1
    assert set_up_again(KEEP, MALLOC_TRIM_THRESHOLD_="1000") >= 15
