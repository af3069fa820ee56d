"""Localise and edit on two checkpoint folders directly: any architecture and size, no model, no training, no scores."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from lce.checks import check_comparison
from lce.commands.checkpoint_settings import EditSettings, LocalizeSettings
from lce.config import LINEAR
from lce.foundations.atomic_files import check_new, replaced_file, scratch_folder
from lce.foundations.errors import LceError
from lce.foundations.overwriting import check_replaceable, check_selection_file
from lce.foundations.paths import SUBNETWORK
from lce.localize.heat_map import save_heat_map
from lce.localize.selection import Selection
from lce.localize.weights import check_pair, localize
from lce.models.layers import is_layer_matrix
from lce.patch.of_edit import patch_of_edit
from lce.patch.on_folders import new_output, write_patched
from lce.patch.record import Parameter
from lce.storage.checkpoint import Checkpoint, common_tensors
from lce.storage.hub import resolve
from lce.storage.in_memory import load_subnetwork
from lce.storage.model_weights import ModelWeights
from lce.storage.on_disk import StoredModel, one_shot
from lce.storage.safetensors_file import Entry


def run_localize(target: str, reference: str, settings: LocalizeSettings, path: Path) -> Selection:
    """Write to ``path`` which weights of ``target`` differ from ``reference``, and a heat map beside it."""
    check_selection_file(path, {".png": "heat map"})
    check_comparison(settings)
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
    check_comparison(settings)
    patch_file, output = (Path(path) if path else None for path in (settings.patch, settings.output))
    written = patch_file or output
    if written is None:
        raise LceError("nothing to write: name a --patch file, an --output folder, or both")
    alpha = settings.alpha if settings.strategy in LINEAR else 1.0
    if patch_file:
        check_replaceable(patch_file, "patch")
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
        # The patch appears before the model: a run that is killed between the two can be run again.
        folder = files.enter_context(new_output(Checkpoint(resolve(target)), output)) if output else None
        place = files.enter_context(replaced_file(patch_file)) if patch_file else scratch / "patch"
        selection = given or localize(settings.localization, *models, settings.k, scratch / "selection")
        patch = patch_of_edit(
            place, settings.strategy, selection, *models, alpha, provenance, settings.old_values, settings.full_step
        )
        if folder:
            write_patched(Checkpoint(resolve(target)), patch, folder, target)
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
    expressions = [re.compile(pattern) for pattern in patterns]
    return lambda name, entry: any(expression.search(name) for expression in expressions)


def _weights(
    checkpoint: Checkpoint, names: dict[str, str], is_pruned: bool, settings: LocalizeSettings
) -> ModelWeights:
    """The weights of a checkpoint, by the target's ``names`` for them and its own."""
    if is_pruned:
        return load_subnetwork(checkpoint.folder, names.values())
    model = StoredModel(checkpoint, names)
    return one_shot(model, settings.sparsity) if settings.localization == "mask" else model
