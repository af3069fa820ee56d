"""What one model learned and another did not, added to a third: θ + (θ_to − θ_from), as a model to edit towards."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from lce.storage.arrays import combined
from lce.storage.model_weights import Chunk, ModelWeights


class Contrast(ModelWeights):
    """The weights θ + (θ_to − θ_from), by the names of θ; a step of strength α towards it adds α (θ_to − θ_from).

    Values are worked out in float32 at least, whatever the types of the three. Where masks prune weights of the two
    that are compared, these count as zero.

    Args:
        target: θ.
        start, end: θ_from and θ_to.
    """

    def __init__(self, target: ModelWeights, start: ModelWeights, end: ModelWeights) -> None:
        self.target, self.start, self.end = target, start, end
        self.folder = f"{start.folder} → {end.folder}"

    @property
    def sparsity(self) -> float:
        return 0.0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.target.shapes

    @property
    def nbytes(self) -> int:
        return self.target.nbytes + self.start.nbytes + self.end.nbytes

    @cached_property
    def fingerprint(self) -> str:
        models = {"target": self.target, "from": self.start, "to": self.end}
        return combined({name: model.fingerprint for name, model in models.items()})

    def values(self, chunk: Chunk) -> Tensor:
        first, second, third = (model.values(chunk) for model in (self.target, self.end, self.start))
        wide = torch.promote_types(first.dtype, torch.float32)
        return first.to(wide) + (second.to(wide) - third.to(wide))

    def kept(self, chunk: Chunk) -> None:
        return None

    def may_differ(self, other: ModelWeights, name: str) -> Tensor:
        return self.start.may_differ(self.end, name)

    def digest(self, name: str, indices: Tensor | None = None, values: Tensor | None = None) -> str:
        raise NotImplementedError("a contrast is edited towards, and is never written")
