from __future__ import annotations

import pytest
import torch
from subnetworks import SHAPES, subnetwork

from lce.foundations.errors import LceError
from lce.localize.controls import random_baseline
from lce.localize.weights import mask_based, value_based

TARGET, REFERENCE = subnetwork("target", 0), subnetwork("reference", 1)
KEPT = TARGET.mask.kept


def test_a_random_baseline_has_the_same_size_and_comes_from_the_population() -> None:
    informed = mask_based(TARGET, REFERENCE)
    one, again, other = (random_baseline(informed, KEPT, seed) for seed in (0, 0, 1))
    assert one.count == informed.count
    assert one.localization == "uninformed-mask"
    for name in SHAPES:
        assert bool(KEPT[name].flatten()[one.indices[name]].all())
        assert torch.equal(one.indices[name], again.indices[name])
    assert any(not torch.equal(one.indices[name], other.indices[name]) for name in SHAPES)


def test_a_matched_one_takes_as_many_of_each_site() -> None:
    informed = value_based(TARGET, REFERENCE, 0.2)
    matched = random_baseline(informed, KEPT, 3, is_matched=True)
    assert matched.counts == informed.counts
    assert matched.localization == "matched-value"
    for name in SHAPES:
        assert bool(KEPT[name].flatten()[matched.indices[name]].all())
    assert any(not torch.equal(matched.indices[name], informed.indices[name]) for name in SHAPES)


def test_a_population_that_is_too_small_is_refused() -> None:
    none = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    with pytest.raises(LceError, match="of 0 weights"):
        random_baseline(mask_based(TARGET, REFERENCE), none, 0)
