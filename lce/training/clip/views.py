"""Views of a picture: moved, turned, scaled, tinted, on another background, and with a part hidden."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor
from torch.nn import functional as F

TURN, SHIFT, SCALE = pi / 15, 0.15, (0.75, 1.2)
HIDDEN, HIDDEN_SIDE = 0.7, (0.3, 0.7)
"""Share of the views in which a rectangle is hidden, and its sides as shares of the picture's."""
LIGHT, CONTRAST = 0.15, 0.2


def random_views(pictures: Tensor, random: torch.Generator) -> Tensor:
    """A view of each picture: RGBA in bytes, (n, 4, height, width), becomes RGB from 0 to 1, (n, 3, height, width)."""
    n, _, height, width = pictures.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=random)

    angle, scale = uniform(-TURN, TURN), uniform(*SCALE)
    cosine, sine, shift = angle.cos() / scale, angle.sin() / scale, uniform(-SHIFT, SHIFT, 2) * 2
    rows = [torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), [n, 4, height, width], align_corners=False)
    colours = pictures.float() / 255
    colours[:, :3] *= colours[:, 3:]  # so that the edge of what is drawn does not take up what lies under it
    moved = F.grid_sample(colours, grid, align_corners=False)
    background = 1 - uniform(0, 0.5, 1, 1, 1) * torch.rand(n, 3, 1, 1, generator=random)
    background = torch.where(uniform(0, 1, 1, 1, 1) < 0.5, 1.0, background)
    seen = moved[:, :3] + (1 - moved[:, 3:]) * background
    seen = (seen - 0.5) * uniform(1 - CONTRAST, 1 + CONTRAST, 1, 1, 1) + 0.5 + uniform(-LIGHT, LIGHT, 1, 1, 1)
    sides = uniform(*HIDDEN_SIDE, 2) * (uniform(0, 1, 1) < HIDDEN)
    hidden = rectangles(uniform(0, 1, 2), sides, height, width)
    return torch.where(hidden, background, seen).clamp(0, 1)


def rectangles(centres: Tensor, sides: Tensor, height: int, width: int) -> Tensor:
    """Where rectangles lie, (n, 1, height, width), by ``centres`` and ``sides`` (n, 2) as shares of the picture."""
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    in_rows = (rows - centres[:, :1]).abs() < sides[:, :1] / 2
    in_columns = (columns - centres[:, 1:]).abs() < sides[:, 1:] / 2
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
