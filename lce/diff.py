"""Localisation: which weights carry the difference between a target and a reference subnetwork.

A selection b marks the weights that an edit may touch. Mask-based: those kept in exactly one of the two
subnetworks, b = m_t XOR m_r (eq. 1). Value-based: the k largest by |m_r ⊙ θ_r − m_t ⊙ θ_t| among those kept
in both (eq. 2). Uninformed: as many at random, the control. (Lutz et al. 2024, section 3.2.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lce.checkpoint import read_record
from lce.errors import LceError
from lce.files import replaced_file
from lce.ranking import largest, smallest
from lce.seeds import generator
from lce.subnetwork import Subnetwork


@dataclass(frozen=True)
class Selection:
    """Weights of one target model, chosen by comparing it with one reference.

    ``indices`` are sorted flat positions (int64) by parameter name, ``shapes`` the shapes of all parameters
    that took part. ``target`` and ``reference`` are the fingerprints of the two subnetworks.
    """

    indices: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    localization: str
    target: str
    reference: str

    @property
    def count(self) -> int:
        return sum(len(indices) for indices in self.indices.values())

    @property
    def size(self) -> int:
        """Number of weights there were to choose from."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    @property
    def share(self) -> float:
        return self.count / self.size

    def by_layer_and_component(self) -> dict[tuple[int, str], tuple[int, int]]:
        """(layer, component) → (selected weights, weights)."""
        cells: dict[tuple[int, str], tuple[int, int]] = {}
        for name, shape in self.shapes.items():
            cell = layer_and_component(name)
            selected, total = cells.get(cell, (0, 0))
            cells[cell] = (selected + len(self.indices[name]), total + torch.Size(shape).numel())
        return cells

    def by_component(self) -> dict[str, dict[str, float]]:
        """Component → count, and share of its weights, summed over layers."""
        totals: dict[str, tuple[int, int]] = {}
        for (_, component), (selected, total) in self.by_layer_and_component().items():
            before = totals.get(component, (0, 0))
            totals[component] = (before[0] + selected, before[1] + total)
        return {name: {"count": n, "share": n / total} for name, (n, total) in totals.items()}

    def save(self, path: Path) -> None:
        record = {
            "kind": "selection",
            "localization": self.localization,
            "target": self.target,
            "reference": self.reference,
            "shapes": self.shapes,
        }
        with replaced_file(path) as temporary:
            save_file(self.indices, temporary, metadata={"lce": json.dumps(record)})

    @classmethod
    def load(cls, path: Path) -> Selection:
        """Read a selection; LceError if it is missing, damaged, or not what it says."""
        record, indices = read_record(path)
        shapes = record.get("shapes")
        about = [record.get(key) for key in ("localization", "target", "reference")]
        if record.get("kind") != "selection" or not isinstance(shapes, dict) or set(indices) != set(shapes):
            raise LceError(f"{path}: is no selection")
        if not all(isinstance(value, str) for value in about):
            raise LceError(f"{path}: does not say which models it was made for")
        shapes = {name: tuple(shape) for name, shape in shapes.items()}
        for name, positions in indices.items():
            check_positions(positions, shapes[name], f"{path}: {name}")
        return cls(indices, shapes, *map(str, about))


def check_positions(positions: Tensor, shape: tuple[int, ...], where: str) -> None:
    """Raises LceError unless ``positions`` are sorted, unique flat indices into a tensor of ``shape``."""
    if positions.ndim != 1 or positions.dtype not in (torch.int32, torch.int64):
        raise LceError(f"{where}: indices must be a vector of int32 or int64, not {positions.dtype}")
    if len(positions) and not (positions[0] >= 0 and positions[-1] < torch.Size(shape).numel()):
        raise LceError(f"{where}: an index lies outside of the tensor of shape {tuple(shape)}")
    if len(positions) > 1 and not bool((positions[1:] > positions[:-1]).all()):
        raise LceError(f"{where}: indices are not sorted or not unique")


def layer_and_component(name: str) -> tuple[int, str]:
    """Layer and component of a parameter: …layer.3.attention.output.dense.weight → (3, attention.output.dense)."""
    match = re.search(r"\.(\d+)\.(.+?)(?:\.weight)?$", name)
    return (int(match[1]), match[2]) if match else (0, name.removesuffix(".weight"))


def mask_based(target: Subnetwork, reference: Subnetwork) -> Selection:
    """b = m_t XOR m_r (eq. 1).

    Raises:
        LceError: the two do not fit, one of them was never pruned, or their masks are the same.
    """
    check_pair(target, reference)
    for subnetwork in (target, reference):
        if not subnetwork.has_mask or not subnetwork.mask.pruned:
            raise LceError(
                f"{subnetwork.folder}: is not pruned, so its mask says nothing; use a sparse subnetwork "
                "or the value-based localisation"
            )
    differing = {name: kept ^ reference.mask.kept[name] for name, kept in target.mask.kept.items()}
    selection = _selection(differing, target, reference, "mask")
    if not selection.count:
        raise LceError(f"{target.folder} and {reference.folder}: their masks are the same; nothing is selected")
    return selection


def value_based(target: Subnetwork, reference: Subnetwork, k: float) -> Selection:
    """The top k by |m_r ⊙ θ_r − m_t ⊙ θ_t| among the weights kept in both (eq. 2).

    Args:
        k: an integer is a number of weights, a float in (0, 1] a share of those kept in both.

    Raises:
        LceError: the two do not fit, are the same, or ``k`` is out of range.
    """
    check_pair(target, reference)
    both = {name: kept & reference.mask.kept[name] for name, kept in target.mask.kept.items()}
    available = sum(int(mask.sum()) for mask in both.values())
    count = k if isinstance(k, int) else round(k * available)
    if not 1 <= count <= available or (isinstance(k, float) and k > 1):
        raise LceError(f"k: expected a share in (0, 1] or a count from 1 to {available:,}, got {k!r}")
    difference = {name: reference.weights[name].float() - weights.float() for name, weights in target.weights.items()}
    return _selection(largest(difference, count, among=both), target, reference, "value")


LOCALIZATIONS: tuple[str, ...] = ("mask", "value")


def localize(localization: str, target: Subnetwork, reference: Subnetwork, k: float) -> Selection:
    """The informed selection of the given kind; ``k`` matters to the value-based one."""
    if localization == "mask":
        return mask_based(target, reference)
    if localization == "value":
        return value_based(target, reference, k)
    raise LceError(f"localization: unknown {localization!r}; known are {', '.join(LOCALIZATIONS)}")


def uninformed(selection: Selection, target: Subnetwork, reference: Subnetwork, strategy: str, seed: int) -> Selection:
    """As many weights as ``selection`` has, drawn at random: the control for an edit by ``strategy``.

    Drawn from the weights kept in the target for pruning, else from all that are not pruned in both.

    Raises:
        LceError: there are fewer weights to draw from than were selected.
    """
    candidates = {
        name: kept if strategy == "pruning" else kept | reference.mask.kept[name]
        for name, kept in target.mask.kept.items()
    }
    random = generator(seed, "uninformed", selection.localization)
    draws = {name: torch.rand(kept.shape, generator=random) for name, kept in candidates.items()}
    return _selection(
        smallest(draws, selection.count, among=candidates), target, reference, f"uninformed-{selection.localization}"
    )


def _selection(marks: Mapping[str, Tensor], target: Subnetwork, reference: Subnetwork, localization: str) -> Selection:
    return Selection(
        indices={name: mark.flatten().nonzero().flatten() for name, mark in marks.items()},
        shapes={name: tuple(mark.shape) for name, mark in marks.items()},
        localization=localization,
        target=target.fingerprint,
        reference=reference.fingerprint,
    )


def check_pair(target: Subnetwork, reference: Subnetwork) -> None:
    """Raises LceError if the two have different parameters, or are the same."""
    if {n: w.shape for n, w in target.weights.items()} != {n: w.shape for n, w in reference.weights.items()}:
        raise LceError(f"{target.folder} and {reference.folder}: have different architectures and cannot be compared")
    if target.fingerprint == reference.fingerprint:
        raise LceError(f"{target.folder} and {reference.folder}: are the same model; target and reference must differ")
