"""The two models that are compared: which they are, and the weights of them that take part."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

from lce.config import EditSettings, Settings, Variant
from lce.foundations.errors import LceError
from lce.foundations.paths import SUBNETWORK, level_folder, variant_folder
from lce.localize.selection import Selection
from lce.localize.weights import check_pair, localize
from lce.models.layers import is_prunable
from lce.storage.checkpoint import Checkpoint, common_tensors
from lce.storage.hub import resolve
from lce.storage.in_memory import load_subnetwork
from lce.storage.model_weights import ModelWeights
from lce.storage.on_disk import StoredModel, one_shot
from lce.storage.safetensors_file import Entry


class Pair(NamedTuple):
    """A target and a reference, by the target's names for their weights."""

    target: ModelWeights
    reference: ModelWeights


def find_model(name: str, settings: Settings) -> Path:
    """The folder of a target or reference: a variant of this experiment at its sparsity, a folder, or a hub model."""
    if name not in get_args(Variant):
        return resolve(name)
    folder = level_folder(variant_folder(settings.experiment, settings.seed, name), settings.sparsity)
    if not folder.exists():
        raise LceError(
            f"{folder}: no such subnetwork; `lce train --variant {name}` with the same configuration makes it "
            f"(sparsities: {settings.sparsities})"
        )
    return folder


def open_pair(
    target: str | Path,
    reference: str | Path,
    settings: EditSettings | None = None,
    selection: Selection | None = None,
    needs_masks: bool = False,
) -> Pair:
    """The weights of two checkpoints that take part in a comparison: of subnetworks in memory, else on the disk.

    Args:
        target, reference: folders, or names on the Hugging Face hub.
        settings: which tensors take part, and what is done where masks are needed and the models bring none.
        selection: if given, its parameters take part; by default the one that the settings name, if they do.
        needs_masks: whether masks are needed whatever the localisation.

    Raises:
        LceError: the two cannot be compared, or are the same.
    """
    settings = settings or EditSettings()
    if selection is None and settings.selection:
        selection = Selection.load(Path(settings.selection))
    checkpoints = Checkpoint(target), Checkpoint(reference)
    shapes = selection.shapes if selection else {}
    wanted = _wanted(settings.tensors) if selection is None else lambda name, entry: name in shapes
    names = common_tensors(*checkpoints, wanted, settings.skip_unmatched)
    with_masks = [settings.tensors is None and (checkpoint.folder / SUBNETWORK).exists() for checkpoint in checkpoints]
    needs_masks = needs_masks or (selection is None and settings.localization == "mask")
    if needs_masks and any(with_masks) and not all(with_masks):
        raise LceError(
            f"{target} and {reference}: one of them has the mask of a subnetwork and the other none; "
            "compare two subnetworks, or two models without"
        )
    models: list[ModelWeights] = []
    for checkpoint, own, has_mask in zip(checkpoints, ({name: name for name in names}, names), with_masks, strict=True):
        if has_mask:
            models.append(load_subnetwork(checkpoint.folder, own.values()))
        else:
            stored = StoredModel(checkpoint, own)
            models.append(one_shot(stored, settings.sparsity) if needs_masks else stored)
    check_pair(*models)
    return Pair(*models)


def _wanted(patterns: list[str] | None) -> Callable[[str, Entry], bool]:
    if patterns is None:
        return lambda name, entry: is_prunable(name, entry.shape)
    expressions = [re.compile(pattern) for pattern in patterns]
    return lambda name, entry: any(expression.search(name) for expression in expressions)


def localization_of(pair: Pair, settings: EditSettings) -> str:
    """The localisation that ``settings`` name, else mask where both models are pruned and value where not."""
    return settings.localization or ("mask" if all(model.is_pruned for model in pair) else "value")


def select(pair: Pair, settings: EditSettings, path: Path | None = None) -> Selection:
    """Localise as ``settings`` say, or read the selection that they name.

    Args:
        path: if given, the selection is written there as it is found, and never held whole.

    Raises:
        LceError: the two cannot be compared so, or nothing is selected.
    """
    if settings.selection:
        return Selection.load(Path(settings.selection))
    return localize(localization_of(pair, settings), *pair, path, share=settings.share, count=settings.count)
