"""The two models that are compared: which they are, and the weights of them that take part."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from lce.config import EditSettings, Settings, Variant
from lce.foundations.errors import LceError
from lce.foundations.paths import SUBNETWORK, level_folder, variant_folder
from lce.localize.contrast import Contrast
from lce.localize.selection import Selection
from lce.localize.weights import check_pair, localize
from lce.models.converted import provide
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
    return Pair(*_opened((target, reference), settings, selection, needs_masks))


def open_contrast(
    target: str | Path,
    contrast: Sequence[str | Path],
    settings: EditSettings | None = None,
    selection: Selection | None = None,
) -> tuple[Pair, Pair]:
    """As `open_pair`, the two models of a ``contrast``; and beside them the ``target`` with what is added to it.

    All go by the target's names. What is added to the target is what the second model of the contrast has and the first
    has not (`lce.localize.contrast.Contrast`).
    """
    settings = settings or EditSettings()
    third, *compared = _opened((target, *contrast), settings, selection)
    return Pair(*compared), Pair(third, Contrast(third, *compared))


def open_models(settings: Settings, selection: Selection | None = None, needs_masks: bool = False) -> tuple[Pair, Pair]:
    """The models that ``settings`` name: the two that are compared, and the target with what it is edited towards.

    These are the same pair, unless the settings name a contrast. A target that lce can convert is made first.
    """
    provide(settings.target, settings.data.downloads)
    target = find_model(settings.target, settings)
    if settings.contrast:
        return open_contrast(target, [find_model(name, settings) for name in settings.contrast], settings, selection)
    pair = open_pair(target, find_model(settings.reference, settings), settings, selection, needs_masks)
    return pair, pair


def _opened(
    models: Sequence[str | Path], settings: EditSettings, selection: Selection | None, needs_masks: bool = False
) -> list[ModelWeights]:
    """The models by the first one's names; the last two are compared, and one before them is dense whatever it is."""
    if selection is None and settings.selection:
        selection = Selection.load(Path(settings.selection))
    checkpoints = [Checkpoint(model) for model in models]
    shapes = selection.shapes if selection else {}
    wanted = _wanted(settings.tensors) if selection is None else lambda name, entry: name in shapes
    first, *others = checkpoints
    each = [common_tensors(first, other, wanted, settings.skip_unmatched) for other in others]
    shared = [name for name in each[0] if all(name in names for names in each)]
    own_names = [{name: name for name in shared}, *({name: names[name] for name in shared} for names in each)]
    compared = checkpoints[-2:]
    with_masks = {
        id(one): settings.tensors is None and one in compared and (one.folder / SUBNETWORK).exists()
        for one in checkpoints
    }
    has_masks = [with_masks[id(one)] for one in compared]
    needs_masks = needs_masks or (selection is None and settings.localization == "mask")
    if needs_masks and any(has_masks) and not all(has_masks):
        raise LceError(
            f"{models[-2]} and {models[-1]}: one of them has the mask of a subnetwork and the other none; "
            "compare two subnetworks, or two models without"
        )
    opened: list[ModelWeights] = []
    for checkpoint, own in zip(checkpoints, own_names, strict=True):
        if with_masks[id(checkpoint)]:
            opened.append(load_subnetwork(checkpoint.folder, own.values()).renamed(own))
        else:
            stored = StoredModel(checkpoint, own)
            is_masked = needs_masks and checkpoint in compared
            opened.append(one_shot(stored, settings.sparsity) if is_masked else stored)
    check_pair(*opened[-2:])
    return opened


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
