"""Localise and edit on two checkpoint folders directly: any architecture and size, no model, no training, no scores."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from lce.checkpoint import Checkpoint, common_tensors, is_layer_matrix, resolve
from lce.diff import check_pair, localize
from lce.edits import LINEAR
from lce.errors import LceError
from lce.figures import save_heat_map
from lce.files import check_new, replaced_file, scratch_folder
from lce.patch.edited import patch_of_edit
from lce.patch.folders import write_patched
from lce.patch.record import Parameter
from lce.paths import SUBNETWORK
from lce.selection import Selection
from lce.stored import StoredModel, one_shot
from lce.subnetwork import load_subnetwork
from lce.tensorfile import Entry
from lce.weights import ModelWeights


@dataclass
class LocalizeSettings:
    """Which weights of two checkpoints differ."""

    localization: Literal["mask", "value"] = "value"
    """value: the k weights that differ most; mask: weights kept in exactly one of the two models' masks."""
    k: int | float = 0.1
    """Size of a value-based selection: a share in (0, 1], or a whole number of weights."""
    sparsity: float = 0.3
    """Share of weights that the masks prune, the smallest of each model in one shot. It is a stand-in where iterative
    magnitude pruning was not run; subnetworks that `lce train` made bring their own masks."""
    tensors: list[str] | None = None
    """Regular expressions: a tensor takes part if its name matches one anywhere. By default the weight matrices of all
    encoder and decoder layers, without embeddings, normalisation, biases and head; experts stacked in three dimensions
    have to be named. Given, the masks of subnetworks, which cover the default only, are left aside."""
    skip_unmatched: bool = False
    """Leave out tensors that only one of the two checkpoints has, instead of refusing them."""


@dataclass
class EditSettings(LocalizeSettings):
    """How the target is edited where it differs from the reference."""

    selection: str | None = None
    """Selection file, as `lce localize TARGET REFERENCE` writes it, to use instead of localising anew."""
    strategy: Literal["interpolation", "extrapolation", "pruning", "mask-switch"] = "extrapolation"
    """Edit. Interpolation and extrapolation are one formula, θ_t + α (θ_r − θ_t)."""
    alpha: float = 2.0
    """Strength of the edit, any real number but 0; 1 puts the reference's values in."""
    patch: str | None = None
    """Patch file to write."""
    output: str | None = None
    """Folder to write the edited model to."""
    old_values: bool = True
    """Keep the old values in the patch, so that it can be reverted."""
    full_step: bool = True
    """Keep the values at α = 1 in the patch, so that it can be scaled to another α without the reference."""


def run_localize(target: str, reference: str, settings: LocalizeSettings, path: Path) -> Selection:
    """Write to ``path`` which weights of ``target`` differ from ``reference``, and a heat map beside it."""
    if path.suffix == ".png":
        raise LceError(f"{path}: is the name that the heat map gets; name the selection .safetensors")
    models = _compared(target, reference, settings, _wanted(settings.tensors))
    selection = localize(settings.localization, *models, settings.k, path)
    save_heat_map(selection, path.with_suffix(".png"))
    return selection


def run_edit(target: str, reference: str, settings: EditSettings) -> dict[str, Parameter]:
    """Edit ``target`` where it differs from ``reference``; write the patch, the edited checkpoint, or both.

    Returns: what the patch says of each parameter that it changes.

    Raises:
        LceError: the two cannot be compared, nothing would change, or there is nowhere to write to; nothing is
            written then.
    """
    patch_file, output = (Path(path) if path else None for path in (settings.patch, settings.output))
    written = patch_file or output
    if written is None:
        raise LceError("nothing to write: name a --patch file, an --output folder, or both")
    alpha = settings.alpha if settings.strategy in LINEAR else 1.0
    if not isfinite(alpha) or alpha == 0:
        raise LceError(f"alpha: expected a finite number other than 0, got {alpha:g}")
    if output:
        check_new(output)
        if patch_file and patch_file.absolute().is_relative_to(output.absolute()):
            raise LceError(f"{patch_file}: lies in the --output folder, which is made anew; name a file elsewhere")
    given = Selection.load(Path(settings.selection)) if settings.selection else None
    provenance: dict[str, Any] = {"target": target, "reference": reference}
    if given:
        needs_masks = settings.strategy == "mask-switch"
        settings = replace(settings, localization="mask" if needs_masks else "value")
        shapes = given.shapes
        models = _compared(target, reference, settings, lambda name, entry: name in shapes)
    else:
        models = _compared(target, reference, settings, _wanted(settings.tensors))
        if settings.localization == "value":
            provenance["k"] = settings.k
    if settings.localization == "mask":
        is_one_shot = isinstance(models[0], StoredModel)
        provenance |= (
            {"masks": "one-shot magnitude", "sparsity": settings.sparsity} if is_one_shot else {"masks": "IMP"}
        )
    with ExitStack() as files:
        scratch = files.enter_context(scratch_folder(written))
        place = files.enter_context(replaced_file(patch_file)) if patch_file else scratch / "patch"
        selection = given or localize(settings.localization, *models, settings.k, scratch / "selection")
        patch = patch_of_edit(
            place, settings.strategy, selection, *models, alpha, provenance, settings.old_values, settings.full_step
        )
        if output:
            write_patched(Checkpoint(resolve(target)), patch, output, target)
    return patch.parameters


def _compared(
    target: str, reference: str, settings: LocalizeSettings, wanted: Callable[[str, Entry], bool]
) -> tuple[ModelWeights, ModelWeights]:
    """The ``wanted`` weights of both, with masks where masks are asked for."""
    checkpoints = Checkpoint(resolve(target)), Checkpoint(resolve(reference))
    names = common_tensors(*checkpoints, wanted, settings.skip_unmatched)
    pruned = [settings.tensors is None and (checkpoint.folder / SUBNETWORK).exists() for checkpoint in checkpoints]
    if settings.localization == "mask" and any(pruned) and not all(pruned):
        raise LceError(
            f"{target} and {reference}: one of them has the mask of a subnetwork and the other none; "
            "compare two subnetworks, or two models without"
        )
    models = [
        _weights(checkpoint, own, is_pruned, settings)
        for checkpoint, own, is_pruned in zip(checkpoints, ({name: name for name in names}, names), pruned, strict=True)
    ]
    check_pair(*models)
    return models[0], models[1]


def _wanted(patterns: list[str] | None) -> Callable[[str, Entry], bool]:
    if patterns is None:
        return lambda name, entry: is_layer_matrix(name, entry.shape)
    try:
        expressions = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise LceError(f"tensors: {error.pattern!r} is no regular expression ({error})") from error
    return lambda name, entry: any(expression.search(name) for expression in expressions)


def _weights(
    checkpoint: Checkpoint, names: dict[str, str], is_pruned: bool, settings: LocalizeSettings
) -> ModelWeights:
    """The weights of a checkpoint, by the target's ``names`` for them and its own."""
    if is_pruned:
        return load_subnetwork(checkpoint.folder, names.values())
    model = StoredModel(checkpoint, names)
    return one_shot(model, settings.sparsity) if settings.localization == "mask" else model
