"""Pictures in batches, read in threads while the model is at work, and kept where all of them are small."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from tqdm import tqdm

from lce.data.pictures.table import Picture
from lce.data.pictures.views import view

if TYPE_CHECKING:
    from PIL.Image import Image

KEPT = 1 << 29
"""Bytes of prepared pictures that are kept for the next time."""
READERS = 4


class View(NamedTuple):
    """A view of a picture, by its number."""

    picture: int
    view: int


class PictureBatches:
    """Views of ``pictures``, all of one picture after each other, in batches of prepared pixels.

    Args:
        prepare: makes pixels (n, 3, height, width) of n pictures.
        views: how many of each picture.
        seed: of the views.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        prepare: Callable[[Sequence[Image]], Tensor],
        views: int,
        size: int,
        seed: int,
    ) -> None:
        self.pictures, self.prepare, self.seed = pictures, prepare, seed
        every = [View(picture, number) for picture in range(len(pictures)) for number in range(views)]
        self.views = every
        self.batches = [every[start : start + size] for start in range(0, len(every), size)]
        self._kept: dict[int, Tensor] = {}

    def read(self, title: str) -> Iterator[tuple[slice, Tensor]]:
        """The pixels of each batch, and where among all views it is; with a progress bar.

        Raises:
            LceError: a picture cannot be read.
        """
        waiting: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
            try:
                left, start = iter(range(len(self.batches))), 0
                for _, number in zip(range(READERS), left, strict=False):
                    waiting.append(pool.submit(self._prepared, number))
                with tqdm(total=len(self.views), desc=title, leave=False, delay=2, disable=None) as bar:
                    for batch in self.batches:
                        pixels = waiting.popleft().result()
                        if (number := next(left, -1)) >= 0:
                            waiting.append(pool.submit(self._prepared, number))
                        yield slice(start, start + len(batch)), pixels
                        start += len(batch)
                        bar.update(len(batch))
            finally:
                pool.shutdown(cancel_futures=True)

    def _prepared(self, number: int) -> Tensor:
        if number in self._kept:
            return self._kept[number]
        images = [view(self.pictures[place], shown, self.seed) for place, shown in self.batches[number]]
        pixels = self.prepare(images)
        if pixels.nbytes * len(self.batches) <= KEPT:
            self._kept[number] = pixels
        return pixels
