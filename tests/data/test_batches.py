from __future__ import annotations

import torch

from lce.data.batches import EvaluationBatches, TrainingBatches, shuffled_batches

SIZES = torch.arange(1000).flip(0) % 97


def test_an_epoch_has_every_text_once_in_batches_of_similar_size() -> None:
    batches = shuffled_batches(SIZES, 10, seed=0, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    spread = max(int(SIZES[batch].max() - SIZES[batch].min()) for batch in batches)
    assert spread <= 3
    assert batches != shuffled_batches(SIZES, 10, seed=0, epoch=1)
    assert batches != shuffled_batches(SIZES, 10, seed=1, epoch=0)


def test_a_resumed_run_sees_the_rest() -> None:
    whole = list(TrainingBatches(SIZES, 10, seed=0, steps=250))
    assert len(whole) == 250
    assert list(TrainingBatches(SIZES, 10, seed=0, steps=250, start=130)) == whole[130:]
    assert {batch.epoch for batch in whole} == {0, 1, 2}


def test_processes_and_parts_share_every_batch() -> None:
    whole = list(TrainingBatches(SIZES, 10, seed=0, steps=20))
    each = [list(TrainingBatches(SIZES, 10, seed=0, steps=20, rank=rank, world=2, parts=2)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        shares = [batches[2 * step + part] for batches in each for part in (0, 1)]
        assert all(share.texts == batch.texts for share in shares)
        taken = [share.texts[share.share :: share.shares] for share in shares]
        assert sorted(i for texts in taken for i in texts) == sorted(batch.texts)


def test_a_corpus_smaller_than_a_batch_still_trains() -> None:
    assert [len(batch.texts) for batch in TrainingBatches(SIZES[:4], 10, seed=0, steps=3)] == [4, 4, 4]


def test_evaluation_sees_everything_once() -> None:
    parts = [list(EvaluationBatches(SIZES, 30, rank, 2)) for rank in (0, 1)]
    assert sorted(i for part in parts for batch in part for i in batch.texts) == list(range(1000))
