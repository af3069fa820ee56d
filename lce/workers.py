"""Work on many pieces in a few threads, with the results in order, few of them waiting, and a progress bar."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
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

    Torch and the operating system let go of Python's lock in what ``work`` does, so as many threads as torch has share
    it, each keeping to one processor.

    Args:
        title: what the progress bar says.
        total, size: bytes in all, and of one item.
    """
    threads = torch.get_num_threads()
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    bar = tqdm(total=total, desc=title, unit="B", unit_scale=True, unit_divisor=1024, delay=1.0)
    with bar, ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        torch.set_num_threads(1)
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= 2 * threads:
                    yield _next(waiting, bar, size)
            while waiting:
                yield _next(waiting, bar, size)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def _next(
    waiting: deque[tuple[Item, Future[Result]]], bar: tqdm[None], size: Callable[[Item], int]
) -> tuple[Item, Result]:
    item, future = waiting.popleft()
    result = future.result()
    bar.update(size(item))
    return item, result
