"""TextSpan: texts that span what an attention head writes, in the order of the variance that they explain.

After Gandelsman, Efros and Steinhardt (2024), algorithm 1: the terms of a head are centred over pictures, and the texts
projected onto the span of their r first principal directions; then, again and again, the text is taken along which the
terms vary most, and its direction removed from terms and texts. Only the terms' covariance matters for that, so no term
has to be kept. A head of width k writes in k directions: where r is larger, the published code also projects onto
directions in which nothing is written, which numerical noise decides; here only those count in which something is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RANK = 80
"""r, as published."""
NOTHING = 1e-10
"""Share of a head's variance below which nothing is left to explain."""


class Explained(NamedTuple):
    """A text, by its number, and the share of a head's variance that lies along its direction."""

    text: int
    share: float


def text_span(terms: Tensor, covariance: Tensor, texts: Tensor, count: int) -> list[Explained]:
    """The ``count`` texts that span what a head writes; fewer where nothing is left of it.

    Args:
        terms: what the head's z is multiplied by, (D, k).
        covariance: of its scaled z, (k, k).
        texts: embeddings of the dictionary, (m, D).
    """
    terms, covariance, texts = (given.cpu().double() for given in (terms, covariance, texts))
    values, vectors = torch.linalg.eigh(covariance)
    factor = terms @ (vectors * values.clamp(min=0).sqrt())
    basis, spread, _ = torch.linalg.svd(factor, full_matrices=False)
    kept = (spread.square() > NOTHING * spread.square().sum()).nonzero().flatten()[:RANK]
    left, words = torch.diag(spread[kept].square()), texts @ basis[:, kept]
    whole = float(spread.square().sum())
    found: list[Explained] = []
    while len(found) < count and float(left.trace()) > NOTHING * whole:
        best = int(((words @ left) * words).sum(1).argmax())
        if (length := float(words[best].norm())) < NOTHING:
            break
        direction = words[best] / length
        found.append(Explained(best, float(direction @ left @ direction) / whole))
        remover = torch.eye(len(direction), dtype=left.dtype, device=left.device) - torch.outer(direction, direction)
        left, words = remover @ left @ remover, words @ remover
    return found
