"""Random sets of heads: different ones, matched by layer, never the selected one, and all where they are few."""

from __future__ import annotations

from math import comb

import pytest
from clips import HEADS, LAYERS, tiny

from lce.localize.head_sets import random_sets
from lce.localize.head_units import HeadUnits
from lce.localize.selection import Selection
from lce.models.image_tower import ImageTower


@pytest.fixture(scope="module")
def units():
    return HeadUnits("model", ImageTower.of(tiny()))


def chosen(units, *heads):
    return Selection(units.positions(heads), units.shapes, "heads", "t", "r", "head")


def places(units, selections):
    return [tuple(units.heads_of(selection)) for selection in selections]


def check(units, own, found):
    """Different sets, each with as many heads of each layer, and none of them the selection's own."""
    sets = places(units, found)
    assert len(set(sets)) == len(sets)
    assert tuple(units.heads_of(own)) not in sets
    for selection in found:
        assert selection.counts == own.counts
        assert selection.localization == "matched-heads"
        assert (selection.kind, selection.target) == ("head", "t")
        assert all((positions.diff() > 0).all() for positions in selection.indices.values())
    return sets


@pytest.mark.parametrize("heads", [[(2, 1)], [(0, 0), (2, 3)], [(1, 0), (1, 1), (2, 2)], [(0, 0), (0, 1), (0, 2)]])
def test_where_there_are_few_all_are_made(units, heads):
    own = chosen(units, *heads)
    possible = 1
    for layer in range(LAYERS):
        possible *= comb(HEADS, sum(at == layer for at, _ in heads))
    for count in (possible - 1, 500):
        assert len(check(units, own, random_sets(units, own, count, 0))) == possible - 1


def test_where_there_are_many_as_many_as_wanted_are_drawn(units):
    own = chosen(units, (0, 1), (0, 2), (1, 0), (1, 3), (2, 2))
    sets = check(units, own, random_sets(units, own, 100, 0))
    assert len(sets) == 100
    assert len(check(units, own, random_sets(units, own, 125, 0))) == 125
    assert places(units, random_sets(units, own, 100, 0)) == sets
    assert places(units, random_sets(units, own, 60, 0)) == sets[:60]
    assert set(places(units, random_sets(units, own, 100, 1))) != set(sets)


def test_every_set_is_as_likely(units):
    """Over many seeds, the first set that is drawn takes each head of a layer about as often."""
    own = chosen(units, (0, 0), (1, 0), (2, 0))
    counts = dict.fromkeys(range(HEADS), 0)
    for seed in range(400):
        [drawn] = random_sets(units, own, 1, seed)
        counts[units.heads_of(drawn)[0][1]] += 1
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 65
    assert max(counts.values()) < 135


def test_none_are_wanted_or_there_are_none(units):
    assert random_sets(units, chosen(units, (0, 1)), 0, 0) == []
    every = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    assert random_sets(units, chosen(units, *every), 200, 0) == []
