"""A selection: the units that an edit may touch, and where in the model they sit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_replaceable
from lce.foundations.threads import ordered
from lce.localize.components import Cells, cells, layers_and_components
from lce.localize.units import Units
from lce.storage.position_codec import decode, encode
from lce.storage.safetensors_file import Entry, TensorWriter, digests_of, read_checked, read_header, read_record

Found = Iterable[tuple[str, Tensor]]
"""Parameters with the positions selected in them, in order."""


@dataclass(frozen=True)
class Selection:
    """Units of one target, chosen by comparing it with one reference.

    ``indices`` are sorted flat positions (int64) by site (of weights: by parameter name), ``shapes`` the shapes of all
    sites that took part. ``target`` and ``reference`` are the fingerprints of the two, ``kind`` says what a unit is.
    ``details`` may say more of each selected unit, by site and in order: what goes into JSON.
    """

    indices: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    localization: str
    target: str
    reference: str
    kind: str = "weight"
    details: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Selected units by site."""
        if isinstance(self.indices, StoredPositions):
            return self.indices.counts
        return {name: len(self.indices[name]) for name in self.shapes}

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @property
    def size(self) -> int:
        """Number of units there were to choose from."""
        return sum(map(prod, self.shapes.values()))

    @property
    def share(self) -> float:
        return self.count / self.size

    def by_layer_and_component(self) -> Cells:
        """Selected units, and units, in each component of each layer."""
        return cells(self.counts, self.shapes)

    def in_last_layers(self, number: int) -> Selection:
        """What of it lies in the last ``number`` layers.

        Raises:
            LceError: there are fewer layers.
        """
        places = layers_and_components(self.shapes)
        layers = sorted({layer for layer, _ in places.values() if layer is not None})
        if not 1 <= number <= len(layers):
            raise LceError(f"last_layers: expected 1 to {len(layers)}, got {number}")
        within = {name: places[name][0] in layers[-number:] for name in self.shapes}
        indices = {name: self.indices[name][: None if within[name] else 0] for name in self.shapes}
        return replace(self, indices=indices)

    def moved_to(self, start: Units, end: Units, target: Units, reference: Units) -> Selection:
        """The same units for another pair, ``target`` and ``reference``.

        Args:
            start, end: the pair that it was made for.

        Raises:
            LceError: it was not.
        """
        if (self.target, self.reference) != (start.fingerprint, end.fingerprint):
            raise LceError("the selection was made for other models than the two of the contrast")
        return replace(self, target=target.fingerprint, reference=reference.fingerprint)

    @classmethod
    def of(
        cls, target: Units, reference: Units, localization: str, found: Found, path: str | Path | None = None
    ) -> Selection:
        """The selection of the units ``found``, held in memory or, if there is a ``path``, written as they are found.

        Raises:
            LceError: it is written, and nothing was found.
        """
        empty = cls({}, target.shapes, localization, target.fingerprint, reference.fingerprint, target.kind)
        if path is None:
            return replace(empty, indices=dict(found))
        write_selection(Path(path), found, empty.shapes, empty.about)
        return cls.load(Path(path))

    def save(self, path: Path) -> None:
        write_selection(path, ((name, self.indices[name]) for name in self.shapes), self.shapes, self.about)

    @property
    def about(self) -> dict[str, Any]:
        """Everything but which units are selected."""
        known = {key: getattr(self, key) for key in ("localization", "target", "reference", "kind")}
        return known | ({"details": dict(self.details)} if self.details else {})

    @classmethod
    def load(cls, path: Path) -> Selection:
        """Open a selection; its positions are read, and checked, parameter by parameter when they are asked for.

        Raises:
            LceError: the file is missing, damaged, or not what it says.
        """
        metadata, entries = read_header(path)
        record = read_record(metadata, path)
        shapes, counts = record.get("shapes"), record.get("counts")
        about = [record.get(key) for key in ("localization", "target", "reference")] + [record.get("units", "weight")]
        if record.get("kind") != "selection" or not isinstance(shapes, dict) or set(entries) != set(shapes):
            raise LceError(f"{path}: is no selection")
        if (
            not isinstance(counts, dict)
            or set(counts) != set(shapes)
            or not all(type(n) is int for n in counts.values())
        ):
            raise LceError(f"{path}: does not say how many weights of each parameter are selected")
        if not all(isinstance(s, list) and all(type(side) is int and side > 0 for side in s) for s in shapes.values()):
            raise LceError(f"{path}: does not give the shape of each parameter")
        if not all(isinstance(value, str) for value in about):
            raise LceError(f"{path}: does not say which models it was made for")
        shapes = {name: tuple(shape) for name, shape in shapes.items()}
        found = StoredPositions(entries, shapes, counts, digests_of(record, path))
        localization, target, reference, kind = map(str, about)
        details = _details(record.get("details", {}), counts, path)
        return cls(found, shapes, localization, target, reference, kind, details)


def _details(details: Any, counts: Mapping[str, int], path: Path) -> dict[str, list[dict[str, Any]]]:
    """What a file says of each unit; LceError if it is not a mapping for each of them."""
    is_known = isinstance(details, dict) and set(details) <= set(counts)
    if not is_known or not all(
        isinstance(rows, list) and len(rows) == counts[site] and all(isinstance(row, dict) for row in rows)
        for site, rows in details.items()
    ):
        raise LceError(f"{path}: says something else of its units than a mapping for each of them")
    return details


class StoredPositions(Mapping[str, Tensor]):
    """The positions of a selection file, by parameter, read and checked when they are asked for."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        shapes: Mapping[str, tuple[int, ...]],
        counts: dict[str, int],
        digests: dict[str, str],
    ) -> None:
        self.entries, self.shapes, self.counts, self.digests = entries, shapes, counts, digests

    def __getitem__(self, name: str) -> Tensor:
        entry = self.entries[name]
        where = f"{entry.path}: {name}"
        steps = read_checked(entry, self.digests)
        return torch.from_numpy(decode(steps, self.counts[name], prod(self.shapes[name]), where))

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def write_selection(path: Path, found: Found, shapes: Mapping[str, tuple[int, ...]], about: Mapping[str, Any]) -> None:
    """Write a selection of the positions ``found``; LceError if there are none, or ``path`` is another kind of file."""
    check_replaceable(path, "selection")
    counts = {}
    with TensorWriter.to(path) as writer:
        encoded = ordered(lambda item: encode(item[1].numpy()), found, None, size=lambda item: item[1].nbytes)
        for (name, positions), steps in encoded:
            counts[name] = len(positions)
            writer.add(name, *steps)
        if not any(counts.values()):
            raise LceError("nothing is selected: the two models do not differ in what was compared")
        known = {key: value for key, value in about.items() if key != "kind"} | {"units": about["kind"]}
        writer.record = {"kind": "selection", **known, "shapes": shapes, "counts": counts}
