"""Small sparse autoencoders with random weights, of every kind."""

from __future__ import annotations

from typing import Any

import torch

from lce.models.autoencoder import SparseAutoencoder

WIDTH, SIZE, K = 12, 40, 5


def made(architecture: str = "standard", **options: Any) -> SparseAutoencoder:
    """An autoencoder with random weights."""
    random = torch.Generator().manual_seed(0)
    encoder, decoder = torch.randn(WIDTH, SIZE, generator=random) / 2, torch.randn(SIZE, WIDTH, generator=random)
    biases = torch.randn(SIZE, generator=random), torch.randn(WIDTH, generator=random)
    options |= {"k": K} if architecture == "topk" else {}
    options |= {"threshold": torch.rand(SIZE, generator=random)} if architecture == "jumprelu" else {}
    site = "blocks.3.hook_resid_post"
    return SparseAutoencoder(encoder, decoder, *biases, architecture=architecture, site=site, **options)
