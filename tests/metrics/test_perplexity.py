from __future__ import annotations

import math

import pytest
import torch

from lce.metrics.perplexity import Perplexity


def test_the_mean_is_over_tokens_not_over_batches() -> None:
    metric = Perplexity()
    metric.update(torch.tensor(6.0), 2)
    metric.update(torch.tensor(1.0), 8)
    assert metric.compute().item() == pytest.approx(math.exp(0.7))
