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
from lce.models.image_states import ImageStates

STRENGTH = 4.0
"""Standard deviation of what is written along the concept, as a multiple of that of the embeddings."""
RIDGE = 1e-2
"""Penalty of the regression, as a share of the mean variance of z."""


@dataclass(frozen=True)
class Planted:
    """Which head was rewritten, and its place among all heads by score, 1 being the first."""

    layer: int
    head: int
    place: int
    heads: int


def planted(audit: HeadAudit) -> Planted:
    """Rewrite a head of the audited model, and look for it."""
    tower = audit.clip.tower
    layer = len(tower.layers) - 1
    scores = audit.statistics.scores()
    head = int(scores[layer].abs().argmin())
    columns = slice(head * tower.head_width, (head + 1) * tower.head_width)
    outputs, scales = _outputs(audit, columns)
    predictor = _predictor(outputs, torch.from_numpy(audit.group))
    reading = audit.statistics.reading
    towards = reading.map.t() @ audit.direction
    along = towards / towards.norm()
    predicted = (outputs - outputs.mean(0)) @ predictor * scales * float(towards.norm())
    spread = torch.cat(audit.statistics.totals).std()
    weight = tower.output(layer).weight.detach()
    before = weight.clone()
    try:
        strength = STRENGTH * float(spread / predicted.std())
        weight[:, columns] += strength * torch.outer(along, predictor.to(along))
        found = HeadStatistics.empty(tower, audit.direction)
        for _, pixels in audit.batches.read("looking for a planted head"):
            found.add(ImageStates.of(tower, pixels.to(audit.clip.device)))
        order = torch.sort(found.scores().flatten(), descending=True, stable=True).indices.tolist()
    finally:
        weight.copy_(before)
    return Planted(layer, head, 1 + order.index(layer * tower.heads + head), len(order))


def _outputs(audit: HeadAudit, columns: slice) -> tuple[Tensor, Tensor]:
    """Of each view, what a head of the last layer puts out on the class token, (n, d/H), and its factor, (n)."""
    outputs, scales = [], []
    for _, pixels in audit.batches.read("reading a head"):
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
