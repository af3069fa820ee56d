"""What heads write, summed up while pictures stream through: the same as from the terms of all pictures together."""

from __future__ import annotations

import pytest
import torch
from clips import HEAD_WIDTH, HEADS, LAYERS, WIDTH, random_pixels, tiny
from torch.nn import functional as F

from lce.foundations.errors import LceError
from lce.localize.head_statistics import HeadStatistics
from lce.models.image_states import ImageStates
from lce.models.image_tower import ImageTower

N = 24


@pytest.fixture(scope="module")
def tower():
    return ImageTower.of(tiny())


@pytest.fixture(scope="module")
def direction():
    return F.normalize(torch.randn(16, generator=torch.Generator().manual_seed(2)), dim=0)


def streamed(tower, direction, *sizes):
    """The statistics of the same pictures, in batches of these sizes."""
    statistics, pixels = HeadStatistics.empty(tower, direction), random_pixels(N)
    for part in pixels.split(sizes):
        statistics.add(ImageStates.of(tower, part))
    return statistics


@pytest.fixture(scope="module")
def whole(tower, direction):
    return streamed(tower, direction, N)


@pytest.mark.parametrize("sizes", [(1,) * N, (5, 1, 11, 7), (23, 1)])
def test_the_batches_make_no_difference(tower, direction, whole, sizes):
    parts = streamed(tower, direction, *sizes)
    assert parts.count == whole.count == N
    for name in ("means", "scaled", "second", "covariances"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-6, rtol=1e-5, msg=name)
    torch.testing.assert_close(torch.cat(parts.components), torch.cat(whole.components), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(parts.scores(), whole.scores(), atol=1e-6, rtol=1e-5)


def test_they_are_means_and_covariances(tower, direction, whole):
    states = ImageStates.of(tower, random_pixels(N))
    for layer in range(LAYERS):
        mixed = states.mixed[layer]
        assert mixed.shape[1] == (1 if layer == LAYERS - 1 else 10)
        torch.testing.assert_close(whole.means[layer], mixed.reshape(-1, WIDTH).double().mean(0), atol=1e-6, rtol=1e-5)
    scaled = whole.reading.scaled_heads(states).double()
    assert scaled.shape == (N, LAYERS, HEADS, HEAD_WIDTH)
    torch.testing.assert_close(whole.scaled, scaled.mean(0), atol=1e-6, rtol=1e-5)
    for layer in range(LAYERS):
        for head in range(HEADS):
            wanted = torch.cov(scaled[:, layer, head].T, correction=0)
            torch.testing.assert_close(whole.covariances[layer, head], wanted, atol=1e-6, rtol=1e-4)


def test_components_are_those_of_the_terms(tower, direction, whole):
    states = ImageStates.of(tower, random_pixels(N))
    terms = whole.reading.head_terms(states) @ direction
    torch.testing.assert_close(torch.cat(whole.components), terms, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(torch.cat(whole.totals), states.embedding() @ direction)


def test_the_scores_of_all_terms_sum_to_one(tower, direction, whole):
    """Those of heads are `scores`; those of the other terms follow from the same formula."""
    states = ImageStates.of(tower, random_pixels(N))
    terms, total = whole.reading.terms(states), states.embedding() @ direction
    centred = (total - total.mean()).double()

    def score(term):
        along = (term @ direction).double()
        return torch.einsum("n...,n->...", along - along.mean(0), centred) / centred.square().sum()

    scores = {name: score(term) for name, term in terms._asdict().items()}
    torch.testing.assert_close(scores["heads"], whole.scores(), atol=1e-5, rtol=1e-4)
    kinds = {"heads": "heads", "mlps": "MLPs", "embedding": "embedding", "biases": "biases", "norm": "biases"}
    shares = dict.fromkeys(kinds.values(), 0.0)
    for name, kind in kinds.items():
        shares[kind] += float(scores[name].sum())
    assert whole.shares() == pytest.approx(shares, abs=1e-4)
    assert float(sum(part.sum() for part in scores.values())) == pytest.approx(1, abs=1e-4)
    assert float(whole.scores().abs().sum()) > 0.1
    assert float(whole.scores().min()) < 0 < float(whole.scores().max())


def test_the_other_direction_has_the_same_scores(tower, direction, whole):
    torch.testing.assert_close(streamed(tower, -direction, N).scores(), whole.scores(), atol=1e-6, rtol=1e-5)


def test_pictures_that_are_all_alike_tell_nothing_of_heads(tower, direction):
    statistics = HeadStatistics.empty(tower, direction)
    statistics.add(ImageStates.of(tower, random_pixels(1).expand(4, -1, -1, -1)))
    with pytest.raises(LceError, match="pictures: the model embeds all of them alike"):
        statistics.scores()
