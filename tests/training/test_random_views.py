"""The views of a picture that a CLIP is trained on."""

from __future__ import annotations

import torch

from lce.foundations.seeds import generator
from lce.training.clip.views import random_views, rectangles


def test_a_picture_that_is_transparent_shows_the_background_alone():
    empty = torch.zeros(64, 4, 20, 20, dtype=torch.uint8)
    found = random_views(empty, generator(0))
    assert found.shape == (64, 3, 20, 20)
    assert float(found.flatten(2).std(2).max()) < 0.2, "one colour, but where a rectangle is hidden"
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(random_views(empty, generator(0)), found)
    assert not torch.equal(random_views(empty, generator(1)), found)


def test_views_keep_a_picture_in_sight():
    black = torch.zeros(200, 4, 20, 20, dtype=torch.uint8)
    black[:, 3, 5:15, 5:15] = 255
    dark = (random_views(black, generator(0)).mean(1) < 0.45).flatten(1).sum(1)
    assert int((dark > 20).sum()) > 180
    assert int(dark.max()) < 200
    assert int(dark.unique().numel()) > 20


def test_rectangles_lie_where_they_are_told_to():
    marks = rectangles(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([[0.5, 0.25], [0.5, 0.5]]), 8, 16)
    assert marks.shape == (2, 1, 8, 16)
    assert marks[0, 0].nonzero().tolist() == [[row, column] for row in range(2, 6) for column in range(6, 10)]
    assert marks[1, 0].nonzero().tolist() == [[row, column] for row in range(2) for column in range(12, 16)]
    assert not rectangles(torch.tensor([[0.5, 0.5]]), torch.zeros(1, 2), 8, 8).any()
