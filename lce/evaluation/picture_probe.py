"""A supervised probe: how well two groups are told apart by the mean state of a picture's visual tokens."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RIDGE = 1e-2
"""Penalty of the regression, as a share of the mean squared length of a centred state."""


def probe_scores(states: Tensor, groups: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """What ridge regression predicts of each picture, fitted without the pictures of its class: high for group 0.

    Args:
        states: (n, width).
        groups: 0 or 1, (n).
        classes: by which pictures are left out, (n).
    """
    x, y = states.double(), torch.from_numpy(1.0 - 2.0 * groups)
    found = torch.zeros(len(x), dtype=torch.float64)
    for name in np.unique(classes):
        out = torch.from_numpy(classes == name)
        centre, level = x[~out].mean(0), y[~out].mean()
        known = x[~out] - centre
        products = known @ known.t()
        penalty = RIDGE * products.diagonal().mean() * torch.eye(len(known), dtype=torch.float64)
        weights = torch.linalg.solve(products + penalty, y[~out] - level)
        found[out] = (x[out] - centre) @ (known.t() @ weights) + level
    return found.numpy()
