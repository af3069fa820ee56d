"""A positive control of the localisation: a head that is made to carry the attribute has to be found, first of all.

In the last layer, the head of smallest score is rewritten: from its output z on the class token the group is predicted
by ridge regression on the pictures' labels, and what W_O makes of z gets that prediction added, along the direction
from which the embedding reads the concept. The localisation, which sees no label, is then run anew. The weights are put
back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lce.evaluation.head_audit import HeadAudit
from lce.localize.head_statistics import HeadStatistics
from lce.localize.heads import HeadLocalizer
from lce.models.fast_linear import OneDnnLinear
from lce.models.image_states import ImageStates

STRENGTHS = (0.25, 0.5, 1.0)
"""Standard deviations of what is written along the concept, as multiples of that of the embeddings."""
RIDGE = 1e-2
"""Penalty of the regression, as a share of the mean variance of z."""


@dataclass(frozen=True)
class Planted:
    """Which head was rewritten, and the least strength at which the localisation names it first; None if at none."""

    layer: int
    head: int
    strength: float | None


def planted(audit: HeadAudit) -> Planted:
    """Rewrite a head of the audited model, weakly at first, and look for it."""
    tower = audit.clip.tower
    layer = len(tower.layers) - 1
    head = int(audit.statistics.scores()[layer].abs().argmin())
    columns = slice(head * tower.head_width, (head + 1) * tower.head_width)
    outputs, scales = _outputs(audit, columns)
    predictor = _predictor(outputs, torch.from_numpy(audit.group))
    towards = audit.statistics.reading.map.t() @ audit.direction
    predicted = (outputs - outputs.mean(0)) @ predictor * scales * float(towards.norm())
    unit = float(torch.cat(audit.statistics.totals).std() / predicted.std())
    written = torch.outer(towards / towards.norm(), predictor.to(towards))
    weight = tower.output(layer).weight.detach()
    before = weight.clone()
    try:
        for strength in STRENGTHS:
            weight.copy_(before)
            weight[:, columns] += strength * unit * written
            ranked = HeadLocalizer(audit.units, _statistics(audit), audit.localizer.dictionary, audit.settings).ranked()
            if ranked and (ranked[0].layer, ranked[0].head) == (layer, head):
                return Planted(layer, head, strength)
    finally:
        weight.copy_(before)
    return Planted(layer, head, None)


def _statistics(audit: HeadAudit) -> HeadStatistics:
    """What the heads of the model write, as it is now."""
    found = HeadStatistics.empty(audit.clip.tower, audit.direction)
    for _, pixels in audit.batches.read("looking for a planted head"):
        with OneDnnLinear():
            found.add(ImageStates.of(audit.clip.tower, pixels.to(audit.clip.device)))
    return found


def _outputs(audit: HeadAudit, columns: slice) -> tuple[Tensor, Tensor]:
    """Of each view, what a head of the last layer puts out on the class token, (n, d/H), and its factor, (n)."""
    outputs, scales = [], []
    for _, pixels in audit.batches.read("reading a head"):
        with OneDnnLinear():
            states = ImageStates.of(audit.clip.tower, pixels.to(audit.clip.device))
        outputs.append(states.mixed[-1][:, 0, columns].cpu())
        scales.append(audit.statistics.reading.scales(states).cpu())
    return torch.cat(outputs), torch.cat(scales)


def _predictor(outputs: Tensor, groups: Tensor) -> Tensor:
    """What a head's output is multiplied by to predict the group, (d/H): positive for the first one."""
    chosen = groups >= 0
    x, y = outputs[chosen].double(), 1.0 - 2.0 * groups[chosen].double()
    x, y = x - x.mean(0), y - y.mean()
    penalty = RIDGE * x.square().mean() * len(x)
    return torch.linalg.solve(x.t() @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.t() @ y).float()
