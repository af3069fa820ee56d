from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from lce.foundations.threads import WINDOW, Progress, _processors, ordered

THREADS = 2
"""As the fixture ``threads`` has it."""
PROGRESS = Progress[int]("numbers", 4, 100, lambda item: 1, lambda item: str(item // 25))


def test_results_come_in_order_and_few_wait() -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def work(item: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.002 * (item % 3))
        assert torch.get_num_threads() == 1
        with lock:
            under_way -= 1
        return item * item

    taken = []

    def items() -> object:
        for item in range(40):
            taken.append(item)
            yield item

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for item, result in ordered(work, items(), PROGRESS):
            assert result == item * item
            assert len(taken) <= item + WINDOW * THREADS + 1
        assert most == THREADS
        assert torch.get_num_threads() == 3, "as it was"
    finally:
        torch.set_num_threads(before)


def test_a_failure_comes_through() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    results = ordered(work, range(100), PROGRESS)
    assert [next(results)[1] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)


def test_the_bar_counts_tensors_and_bytes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)  # elsewhere there is none
    for _ in ordered(lambda item: time.sleep(0.03), range(100), PROGRESS):
        pass
    printed = capsys.readouterr().err
    assert "4/4 tensors" in printed
    assert "100/100" in printed


def test_large_items_do_not_pile_up() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    def size(item: int) -> int:
        return 1 << 28

    for progress in (replace(PROGRESS, size=size), None):
        taken.clear()
        for item, _ in ordered(lambda item: item, items(), progress, None if progress else size):
            assert len(taken) <= item + 2


def test_the_number_of_threads_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    all_of_them = _processors()
    for given, threads in {"1": 1, "3,2": 3, "0": all_of_them, "auto": all_of_them}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert _processors() == threads
