"""An edit of attention heads, which is an edit of weights: what they write is replaced by its mean, or by less.

Head h of a layer adds W_O[:, h] z to the state of each token. With z̄ the mean of z:
    zero        W_O[:, h] becomes 0
    mean        W_O[:, h] becomes 0, and b_O gets W_O[:, h] z̄ added
    projection  W_O[:, h] loses the direction v that the embedding reads the concept from, (I − v vᵀ) W_O[:, h], and b_O
                gets v vᵀ W_O[:, h] z̄ added
The change is the same for every token. In the last layer z̄ is the mean over class tokens, on which alone the embedding
depends; in the others, over all tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lce.foundations.errors import LceError
from lce.localize.controls import random_baseline
from lce.localize.head_settings import HeadEditName
from lce.localize.head_statistics import HeadStatistics
from lce.localize.head_units import HeadUnits
from lce.localize.selection import Selection
from lce.models.identity import model_fingerprint
from lce.models.image_states import Outputs
from lce.patch import Patch
from lce.patch.writer import Made, made_of, write_patch
from lce.storage.changes import Change
from lce.storage.checkpoint import Checkpoint
from lce.storage.on_disk import StoredModel

Written = tuple[Tensor, Tensor]
"""What the selected heads of a layer still write: W_O's columns (d, k), and what b_O gets added (d)."""


def _zero(columns: Tensor, mean: Tensor, direction: Tensor) -> Written:
    return torch.zeros_like(columns), torch.zeros_like(direction)


def _mean(columns: Tensor, mean: Tensor, direction: Tensor) -> Written:
    return torch.zeros_like(columns), columns @ mean


def _projection(columns: Tensor, mean: Tensor, direction: Tensor) -> Written:
    along = direction @ columns
    return columns - torch.outer(direction, along), direction * (along @ mean)


HEAD_EDITS: dict[HeadEditName, Callable[[Tensor, Tensor, Tensor], Written]] = {
    "mean": _mean,
    "zero": _zero,
    "projection": _projection,
}


@dataclass(frozen=True)
class HeadEdit:
    """What becomes of the selected heads of a CLIP.

    Attributes:
        statistics: where the means and the direction of the concept come from.
        checkpoint: the model's files, in whose type the new weights are rounded, so that the patch is the edit.
    """

    units: HeadUnits
    selection: Selection
    statistics: HeadStatistics
    checkpoint: Checkpoint
    name: HeadEditName = "mean"

    def random_baseline(self, seed: int, is_matched: bool = False) -> HeadEdit:
        """The same edit of as many heads drawn at random; if matched, of as many of each layer."""
        population = {site: torch.ones(shape, dtype=torch.bool) for site, shape in self.units.shapes.items()}
        return replace(self, selection=random_baseline(self.selection, population, seed, is_matched))

    def outputs(self) -> Outputs:
        """The output projections of the layers in which heads are selected, as they become."""
        tower, found = self.units.tower, {}
        read = (self.statistics.reading.map.t() @ self.statistics.direction).cpu().double()
        direction = read / read.norm()
        for layer, heads in self.units.by_layer(self.selection).items():
            output = tower.output(layer)
            weight, bias = (part.detach().cpu().double() for part in (output.weight, output.bias))
            columns = torch.cat([torch.arange(tower.head_width) + head * tower.head_width for head in heads])
            kept, added = HEAD_EDITS[self.name](weight[:, columns], self.statistics.means[layer, columns], direction)
            weight = weight.index_copy(1, columns, kept)
            found[layer] = self._rounded(layer, "weight", weight), self._rounded(layer, "bias", bias + added)
        return found

    def _rounded(self, layer: int, part: str, values: Tensor) -> Tensor:
        """``values`` as the model's files can hold them, in float32."""
        dtype = {"F16": torch.float16, "BF16": torch.bfloat16}.get(self._stored.entries[self._name(layer, part)].code)
        rounded = (values if dtype is None else values.to(dtype)).float()
        return rounded.to(self.units.tower.projection.weight.device)

    def _name(self, layer: int, part: str) -> str:
        return f"{self.units.tower.output_name(layer)}.{part}"

    def check(self) -> None:
        """Raises LceError if it would change nothing."""
        for layer, parts in self.outputs().items():
            output = self.units.tower.output(layer)
            if not all(torch.equal(*pair) for pair in zip(parts, (output.weight, output.bias), strict=True)):
                return
        raise LceError(self._nothing_changed)

    @cached_property
    def _stored(self) -> StoredModel:
        names = [
            self._name(layer, part) for layer in range(len(self.units.tower.layers)) for part in ("weight", "bias")
        ]
        if missing := [name for name in names if name not in self.checkpoint.entries]:
            raise LceError(f"{self.checkpoint.title}: its files hold no {missing[0]}")
        return StoredModel(self.checkpoint, {name: name for name in names})

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block, ``model`` is edited in place; after it, in any case, it is as it was, bit for bit.

        Raises:
            LceError: ``model`` is another one, or the edit would change nothing.
        """
        if model_fingerprint(model) != self.units.model:
            raise LceError("the model is not the one that the heads were selected in")
        undo: list[tuple[Tensor, Tensor]] = []
        try:
            for layer, parts in self.outputs().items():
                output = model.get_submodule(self.units.tower.output_name(layer))
                for parameter, values in zip((output.weight, output.bias), parts, strict=True):
                    assert isinstance(parameter, Tensor)
                    undo.append((parameter.detach(), parameter.detach().clone()))
                    parameter.detach().copy_(values)
            if all(torch.equal(changed, before) for changed, before in undo):
                raise LceError(self._nothing_changed)
            yield
        finally:
            for changed, before in undo:
                changed.copy_(before)

    @property
    def _nothing_changed(self) -> str:
        return f"the edit ({self.name}) would change no weight of {self.checkpoint.title}"

    def patch(self, path: str | Path, provenance: Mapping[str, Any] | None = None) -> Patch:
        """Write to ``path`` the patch that makes this edit, which `lce patch scale` makes weaker or stronger.

        Raises:
            LceError: nothing would change, or ``path`` cannot be written; nothing is left there then.
        """
        stored, outputs = self._stored, self.outputs()
        new = {self._name(layer, part): values for layer, parts in outputs.items()
               for part, values in zip(("weight", "bias"), parts, strict=True)}  # fmt: skip

        def made(name: str) -> Made | None:
            old = stored.values(stored.whole(name))
            values = new[name].flatten().cpu().to(old.dtype)
            indices = (values != old).nonzero().flatten()
            if not len(indices):
                return None
            change = Change(indices, values[indices], stored.shapes[name], old[indices], values[indices])
            return made_of(change, stored.digest(name), stored.digest(name, indices, values[indices]))

        heads = [f"{layer}.{head}" for layer, head in self.units.heads_of(self.selection)]
        about = {"localization": self.selection.localization, "strategy": f"{self.name} of heads", "alpha": 1.0}
        sizes = {name: stored.entries[name].nbytes for name in new}
        return write_patch(
            path, made, sizes, {**(provenance or {}), **about, "heads": heads}, refuse_if_void=self._nothing_changed
        )
