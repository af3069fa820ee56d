"""Work on many items in a few threads, with the results in order, few of them waiting, and a progress bar."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
WINDOW = 4
"""Items for each thread that may wait or be worked on at once: enough that one large tensor keeps no thread waiting."""
MOST_UNDER_WAY = 1 << 28
"""Bytes of items that may wait or be worked on at once; a single larger item is worked on alone."""


@dataclass(frozen=True)
class Progress(Generic[Item]):
    """What a progress bar shows: bytes done of ``total``, and tensors done of ``tensors``.

    ``size`` and ``tensor`` give an item's bytes and the name of the tensor that it belongs to.
    """

    title: str
    tensors: int
    total: int
    size: Callable[[Item], int]
    tensor: Callable[[Item], str]


def ordered(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    progress: Progress[Item] | None,
    size: Callable[[Item], int] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Each item with the result of ``work`` on it, in order; few items and bytes are under way at a time.

    Where the items themselves come from such work, there is no second ``progress`` to show; ``size`` then gives an
    item's bytes.

    This is faster where ``work`` releases Python's lock, as numpy, torch, hashlib and reading files do. There are as
    many threads as processors, or OMP_NUM_THREADS of them; in each, torch, if it is imported, uses one processor.
    """
    threads = _processors()
    torch = sys.modules.get("torch")
    in_torch = torch.get_num_threads() if torch else 1

    def keep_to_one() -> None:
        if torch:
            torch.set_num_threads(1)

    waiting: deque[tuple[Item, Future[Result]]] = deque()
    bar = tqdm(
        total=progress.total if progress else None, desc=progress.title if progress else None,
        unit="B", unit_scale=True, unit_divisor=1024, delay=1.0, disable=None if progress else True,
    )  # fmt: skip
    last, tensors, under_way = None, 0, 0
    size_of = progress.size if progress else size or (lambda _: 0)

    def finished() -> tuple[Item, Result]:
        nonlocal last, tensors, under_way
        item, future = waiting.popleft()
        result = future.result()
        if progress:
            if (tensor := progress.tensor(item)) != last:
                last, tensors = tensor, tensors + 1
                bar.set_postfix_str(f"{tensors}/{progress.tensors} tensors", refresh=False)
            bar.update(progress.size(item))
        under_way -= size_of(item)
        return item, result

    with bar, ThreadPoolExecutor(threads, initializer=keep_to_one) as pool:
        try:
            keep_to_one()
            for item in items:
                more = size_of(item)
                while waiting and (len(waiting) >= WINDOW * threads or under_way + more > MOST_UNDER_WAY):
                    yield finished()
                waiting.append((item, pool.submit(work, item)))
                under_way += more
            while waiting:
                yield finished()
        finally:
            pool.shutdown(cancel_futures=True)
            if torch:
                torch.set_num_threads(in_torch)


def by_tensor(title: str, sizes: dict[str, int]) -> Progress[str]:
    """The progress of work whose items are names of tensors, of ``sizes`` bytes."""
    return Progress(title, len(sizes), sum(sizes.values()), sizes.__getitem__, str)


def _processors() -> int:
    """How many this process may use."""
    if given := os.environ.get("OMP_NUM_THREADS", ""):
        first = given.partition(",")[0].strip()
        if first.isdigit() and int(first):
            return int(first)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
