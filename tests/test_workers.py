from __future__ import annotations

import threading
import time

import pytest
import torch

from lce.workers import ordered


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

    threads = torch.get_num_threads()
    drawn = []

    def items() -> object:
        for item in range(40):
            drawn.append(item)
            yield item

    for item, result in ordered(work, items(), "squares", 40, lambda item: 1):
        assert result == item * item
        assert len(drawn) <= item + 2 * threads
    assert most <= threads
    assert torch.get_num_threads() == threads


def test_a_failure_comes_through() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    results = ordered(work, range(100), "numbers", 100, lambda item: 1)
    assert [next(results)[1] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
