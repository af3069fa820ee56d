"""Perplexity of a masked language model: exp of the mean loss over the masked tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class Perplexity(Metric):
    """exp(Σ loss / Σ tokens); right over batches of different sizes and over processes."""

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    loss: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("tokens", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, tokens: int) -> None:
        """Add the summed ``loss`` (scalar, nats) of ``tokens`` masked tokens."""
        self.loss += loss.detach().float()
        self.tokens += tokens

    def compute(self) -> Tensor:
        return torch.exp(self.loss / self.tokens)
