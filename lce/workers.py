"""Work on many pieces in a few threads, with the results in order, few of them waiting, and a progress bar."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    title: str,
    total: int,
    size: Callable[[Item], int],
) -> Iterator[tuple[Item, Result]]:
    """Each item with what ``work`` makes of it, in order; at most two items a thread are under way.

    Numpy, torch, hashlib and the operating system let go of Python's lock in what ``work`` does. There are as many
    threads as processors, or OMP_NUM_THREADS of them; torch, if there, keeps to one processor in each.

    Args:
        title: what the progress bar says.
        total, size: bytes in all, and of one item.
    """
    threads = _processors()
    torch = sys.modules.get("torch")
    in_torch = torch.get_num_threads() if torch else 1

    def keep_to_one() -> None:
        if torch:
            torch.set_num_threads(1)

    waiting: deque[tuple[Item, Future[Result]]] = deque()
    bar = tqdm(total=total, desc=title, unit="B", unit_scale=True, unit_divisor=1024, delay=1.0)
    with bar, ThreadPoolExecutor(threads, initializer=keep_to_one) as pool:
        try:
            keep_to_one()
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= 2 * threads:
                    yield _next(waiting, bar, size)
            while waiting:
                yield _next(waiting, bar, size)
        finally:
            pool.shutdown(cancel_futures=True)
            if torch:
                torch.set_num_threads(in_torch)


def _processors() -> int:
    """How many this process may use."""
    if given := os.environ.get("OMP_NUM_THREADS", ""):
        return max(1, int(given.partition(",")[0]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _next(
    waiting: deque[tuple[Item, Future[Result]]], bar: tqdm[None], size: Callable[[Item], int]
) -> tuple[Item, Result]:
    item, future = waiting.popleft()
    result = future.result()
    bar.update(size(item))
    return item, result
