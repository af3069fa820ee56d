"""TextSpan from covariances alone: the same as the published algorithm on the terms of all pictures."""

from __future__ import annotations

import pytest
import torch

from lce.localize.text_span import RANK, text_span

N, D, K, TEXTS = 60, 16, 6, 25


def literal(terms, texts, rank, count):
    """Gandelsman et al. (2024), algorithm 1, from the ``terms`` (n, D) of every picture: the texts and their shares."""
    terms, texts = terms - terms.mean(0), texts.double()
    vectors = torch.linalg.svd(terms, full_matrices=False).Vh[:rank]
    texts = texts @ vectors.T @ vectors
    whole = terms.square().sum()
    found = []
    for _ in range(count):
        best = int((terms @ texts.T).var(0).argmax())
        direction = texts[best] / texts[best].norm()
        along = terms @ direction
        found.append((best, float(along.square().sum() / whole)))
        terms = terms - torch.outer(along, direction)
        texts = texts - torch.outer(texts @ direction, direction)
    return found


def made(seed, k=K, d=D, texts=TEXTS):
    """What a head's z is multiplied by, its z of many pictures, far from centred, and texts."""
    random = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(2, 0.2, k)
    z = torch.randn(N, k, generator=random) * sizes + 3 * torch.randn(k, generator=random)
    words = torch.nn.functional.normalize(torch.randn(texts, d, generator=random), dim=1)
    return torch.randn(d, k, generator=random), z, words


def covariance(z):
    return torch.cov(z.double().T, correction=0)


@pytest.mark.parametrize("seed", range(6))
def test_the_texts_and_shares_are_those_of_the_published_algorithm(seed):
    map_, z, texts = made(seed)
    found = text_span(map_, covariance(z), texts, K)
    wanted = literal(z.double() @ map_.double().T, texts, K, K)
    assert [text.text for text in found] == [text for text, _ in wanted]
    assert [text.share for text in found] == pytest.approx([share for _, share in wanted], abs=1e-9)
    assert len({text.text for text in found}) == K


def test_all_directions_together_explain_everything_and_then_nothing_is_left():
    """Even with more texts than a head has dimensions, and however many are asked for."""
    map_, z, texts = made(0)
    found = text_span(map_, covariance(z), texts, TEXTS)
    assert len(found) == K
    assert sum(text.share for text in found) == pytest.approx(1, abs=1e-9)
    assert text_span(map_, covariance(z), texts, 3) == found[:3]


def test_fewer_texts_than_dimensions_are_each_taken_once():
    map_, z, texts = made(1, texts=4)
    found = text_span(map_, covariance(z), texts, 10)
    assert sorted(text.text for text in found) == [0, 1, 2, 3]
    assert 0 < sum(text.share for text in found) < 1


def test_a_head_that_writes_along_one_text_is_described_by_it_alone():
    _, z, texts = made(2)
    map_ = torch.outer(texts[17], torch.randn(K, generator=torch.Generator().manual_seed(0)))
    [only] = text_span(map_, covariance(z), texts, 5)
    assert only.text == 17
    assert only.share == pytest.approx(1)


@pytest.mark.parametrize("is_map", [True, False])
def test_a_head_that_writes_nothing_has_no_texts(is_map):
    map_, z, texts = made(3)
    assert text_span(map_ * (not is_map), covariance(z) * is_map, texts, 5) == []


def test_the_scale_of_what_a_head_writes_does_not_matter():
    map_, z, texts = made(4)
    found = text_span(map_, covariance(z), texts, K)
    for scale in (1e-4, 1e3):
        scaled = text_span(map_ * scale, covariance(z), texts, K)
        assert [text.text for text in scaled] == [text.text for text in found]
        assert [text.share for text in scaled] == pytest.approx([text.share for text in found])


def test_wide_heads_are_described_by_their_largest_directions():
    """With more dimensions than `RANK`, texts are projected onto the first ones alone."""
    random = torch.Generator().manual_seed(0)
    k, d = RANK + 20, RANK + 60
    z = torch.randn(400, k, generator=random) * torch.linspace(1, 0.01, k)
    map_ = torch.linalg.qr(torch.randn(d, k, generator=random)).Q
    texts = torch.nn.functional.normalize(torch.randn(12, d, generator=random), dim=1)
    found = text_span(map_, covariance(z), texts, 8)
    wanted = literal(z.double() @ map_.double().T, texts, RANK, 8)
    assert [text.text for text in found] == [text for text, _ in wanted]
    assert [text.share for text in found] == pytest.approx([share for _, share in wanted], abs=1e-9)
