"""What the heads of an image encoder write while it looks at pictures, as means and covariances.

No labels are needed, and no term of a picture is kept. Batches of pictures stream through the encoder once. Of each
head are kept the mean of its output z, the mean and covariance of z scaled by its picture's factor (`Reading.scales`),
from which the covariance of its term follows, and one number a picture: the component of its term in the direction of
the concept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lce.foundations.errors import LceError
from lce.models.image_states import ImageStates
from lce.models.image_terms import Reading
from lce.models.image_tower import ImageTower


@dataclass
class HeadStatistics:
    """Of L layers with H heads each, over n pictures, the concept's direction being u (D).

    Attributes:
        count: n.
        means: of z over the tokens on which the embedding depends, (L, d): in the last layer the class token, else all.
        scaled: mean of the scaled z of the class token, (L, H, d/H).
        second: mean of its outer products, (L, H, d/H, d/H).
        components: of each head's term along u, a batch each, (n, L, H).
        others: of all other terms along u, by their kind, a batch each, (n).
        totals: of the embeddings along u, a batch each, (n).
    """

    reading: Reading
    direction: Tensor
    count: int
    means: Tensor
    scaled: Tensor
    second: Tensor
    components: list[Tensor] = field(default_factory=list)
    others: dict[str, list[Tensor]] = field(default_factory=dict)
    totals: list[Tensor] = field(default_factory=list)

    @classmethod
    def empty(cls, tower: ImageTower, direction: Tensor) -> HeadStatistics:
        layers, heads, width = len(tower.layers), tower.heads, tower.head_width
        shapes = (layers, heads * width), (layers, heads, width), (layers, heads, width, width)
        means, scaled, second = (torch.zeros(shape, dtype=torch.float64) for shape in shapes)
        return cls(Reading(tower), direction, 0, means, scaled, second)

    @torch.inference_mode()
    def add(self, states: ImageStates) -> None:
        """Take in a batch of pictures."""
        n = len(states.last)
        self.count += n
        share = n / self.count
        scaled = self.reading.scaled_heads(states)
        self.means.lerp_(torch.stack([mixed.mean((0, 1)) for mixed in states.mixed]).cpu().double(), share)
        self.scaled.lerp_(scaled.mean(0).cpu().double(), share)
        products = torch.einsum("nlhi,nlhj->lhij", scaled, scaled) / n
        self.second.lerp_(products.cpu().double(), share)
        along = torch.einsum("lhdk,d->lhk", self.reading.heads, self.direction)
        self.components.append(torch.einsum("nlhk,lhk->nlh", scaled, along).cpu())
        for kind, along_u in self.reading.other_components(states, self.direction).items():
            self.others.setdefault(kind, []).append(along_u.cpu())
        self.totals.append((states.embedding() @ self.direction).cpu())

    @property
    def covariances(self) -> Tensor:
        """Of the scaled z of each head, (L, H, d/H, d/H)."""
        return self.second - self.scaled[..., :, None] * self.scaled[..., None, :]

    def scores(self) -> Tensor:
        """How much of the spread of the concept over pictures comes from each head, (L, H).

        With a_h(x) the component of head h's term along u in picture x, and a(x) that of the whole embedding,
            score_h = Cov(a_h, a) / Var(a).
        Over all terms of the embedding they sum to 1; a negative one works against the others. The score is lce's own.

        Raises:
            LceError: the concept does not vary over the pictures.
        """
        return self._share(torch.cat(self.components))

    def shares(self) -> dict[str, float]:
        """The same of all heads together, and of the other kinds of terms: they sum to 1."""
        others = {kind: float(self._share(torch.cat(batches))) for kind, batches in self.others.items()}
        return {"heads": float(self.scores().sum()), **others}

    def _share(self, components: Tensor) -> Tensor:
        """Cov(component, a) / Var(a) of ``components`` (n, …): shape (…)."""
        each, whole = components.double(), torch.cat(self.totals).double()
        centred = whole - whole.mean()
        if not (variance := centred.square().sum()) > 0:
            raise LceError("pictures: the model embeds all of them alike, so no head tells them apart by the concept")
        return torch.tensordot(centred, each - each.mean(0), 1) / variance
