"""Batches of sentences of similar length, in an order that depends on the seed alone."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lce.data.collating import Collator, TokenBatch
from lce.foundations.seeds import generator

WINDOW = 50
"""Batches whose texts are sorted by length together: enough to save padding, few enough to stay random."""


class Batch(NamedTuple):
    """A share of a step's batch: of the indices ``texts``, every ``shares``-th one, starting from number ``share``."""

    epoch: int
    texts: list[int]
    share: int = 0
    shares: int = 1


def shuffled_batches(sizes: Tensor, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """All texts once, shuffled, in full batches of similar ``sizes``; a remainder is left out of this epoch."""
    random = generator(seed, "order", epoch)
    order = torch.randperm(len(sizes), generator=random)
    order = order[: len(order) // batch_size * batch_size] if len(order) >= batch_size else order
    windows = [window[sizes[window].argsort(stable=True)] for window in order.split(WINDOW * batch_size)]
    batches = list(torch.cat(windows).split(batch_size))
    return [batches[i].tolist() for i in torch.randperm(len(batches), generator=random).tolist()]


def sorted_batches(sizes: Tensor, batch_size: int) -> list[list[int]]:
    """All texts once, shortest first."""
    return [batch.tolist() for batch in sizes.argsort(stable=True).split(batch_size)]


class TrainingBatches(Sampler[Batch]):
    """The batches of steps ``start`` to ``steps``, over as many epochs as that takes.

    Its length counts all steps, including those before ``start``, because a resumed Trainer counts them too.
    ``batch_size`` is the number of sentences of a step, which the ``world`` processes share, each in ``parts`` whose
    gradients are accumulated: a step means the same however it is divided.
    """

    def __init__(
        self,
        sizes: Tensor,
        batch_size: int,
        seed: int,
        steps: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        parts: int = 1,
    ) -> None:
        self.sizes, self.batch_size, self.seed = sizes, batch_size, seed
        self.steps, self.start, self.rank, self.world, self.parts = steps, start, rank, world, parts

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[Batch]:
        step, epoch = 0, 0
        while True:
            for texts in shuffled_batches(self.sizes, self.batch_size, self.seed, epoch):
                if step == self.steps:
                    return
                for part in range(self.parts if step >= self.start else 0):
                    yield Batch(epoch, texts, part * self.world + self.rank, self.parts * self.world)
                step += 1
            epoch += 1


class EvaluationBatches(Sampler[Batch]):
    """All texts once, shortest first, with masks that never change; process ``rank`` takes every ``world``-th batch."""

    def __init__(self, sizes: Tensor, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.batches = sorted_batches(sizes, batch_size)[rank::world]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return (Batch(0, texts) for texts in self.batches)


class CollatedBatches(Dataset[TokenBatch]):
    """A data set indexed by batches, so that the collator knows the epoch and the texts."""

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __getitem__(self, batch: Batch) -> TokenBatch:
        return self.collator(*batch)
