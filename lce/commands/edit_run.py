"""The run of `lce edit`: every α of one edit tried, measured and kept as a patch, in one folder of results."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lightning.pytorch.loggers import TensorBoardLogger

from lce.commands.common import is_made, result_name, varying
from lce.config import Settings, Variant
from lce.edit.callback import log_scores
from lce.edit.strategies import checked_strengths, find
from lce.edit.weight_edit import WeightEdit
from lce.evaluation.curves import alpha_curves
from lce.evaluation.edits import EditMeasurement
from lce.evaluation.evaluator import Evaluator
from lce.foundations.atomic_files import check_new, scratch_folder
from lce.foundations.errors import LceError
from lce.foundations.files import save_config, write_json
from lce.foundations.overwriting import check_own_folder, check_replaceable
from lce.foundations.paths import CONFIG, RESULT
from lce.foundations.seeds import derive
from lce.localize.components import by_component
from lce.localize.heat_map import save_heat_map
from lce.localize.pair import Pair, localization_of, open_models, select
from lce.localize.selection import Selection
from lce.models.kinds import kind_of
from lce.models.loading import load_language_model
from lce.patch import Patch
from lce.patch.on_folders import new_output, write_patched
from lce.storage.checkpoint import Checkpoint
from lce.storage.in_memory import Subnetwork, read_record
from lce.storage.model_weights import ModelWeights
from lce.storage.torch_bridge import fingerprint
from lce.training.trainer_options import numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
Rows = dict[str, dict[str, Any]]
"""Score → its values before and after the edit, and of what they are compared with."""


def run_edit(settings: Settings, trainer_options: Mapping[str, Any]) -> Path:
    """Edit the target for every α, measure, write patches and figures; return the path of the result.

    A result that exists for the same settings and models is not made again.

    Raises:
        LceError: target, reference, selection and strategy do not fit, no α changes anything, or something would be
            written over.
    """
    alphas = checked_strengths(settings.strategy, settings.alpha)
    given = Selection.load(Path(settings.selection)) if settings.selection else None
    compared, pair = _opened(settings, given)
    localization = given.localization if given else localization_of(compared, settings)
    strengths = ["alphas" if len(alphas) > 1 else f"alpha{alphas[0]:g}"] * find(settings.strategy).is_linear
    name = result_name(settings, pair, localization, settings.strategy, *strengths)
    default = Path(settings.experiment) / f"seed-{settings.seed}" / "edits" / name
    folder = Path(settings.output) if settings.output else default
    result_file = folder / RESULT
    identity = varying(settings) | {
        "alpha": alphas,
        "models": [model.fingerprint for model in pair],
        "selection": fingerprint(given.indices) if given else None,
        "trainer": numerics(trainer_options),
    }
    digest = f"{derive(str(identity)):016x}"
    if is_made(result_file, digest):
        return result_file
    if settings.output:
        check_own_folder(folder, CONFIG, "edit")
    _check_outputs(settings, alphas, folder)
    with _removed_if_refused(folder), scratch_folder(folder) as scratch:
        selection = select(compared, settings, scratch / "selection.safetensors")
        if compared is not pair:
            selection = selection.moved_to(*compared, *pair)
        edits = {alpha: WeightEdit(selection, *pair, settings.strategy, alpha) for alpha in alphas if alpha}
        next(iter(edits.values())).check()  # refused before anything is written
        with _measurement(settings, trainer_options, pair, len(edits), folder) as measurement:
            save_config(folder / CONFIG, asdict(settings) | {"trainer": dict(trainer_options)}, "edit")
            common = _provenance(settings, compared, pair, selection)
            results = [
                _tried(settings, edits.get(alpha), alpha, folder, common, pair.target.shapes, measurement)
                for alpha in alphas
            ]
        save_heat_map(selection, folder / "selection.png")
    if measurement and len(results) > 1:
        alpha_curves(results, folder / "alpha.png")
    found = results[0] if len(results) == 1 else {"edits": results}
    write_json(result_file, {**common, **found, "identity": digest})
    return result_file


def _opened(settings: Settings, selection: Selection | None) -> tuple[Pair, Pair]:
    """The two models that are compared, and the target with what it is edited towards: the same, or a contrast."""
    strategy = find(settings.strategy)
    if settings.contrast and not strategy.is_linear:
        raise LceError(f"strategy: {settings.strategy} adds nothing; a contrast needs a linear strategy")
    return open_models(settings, selection, strategy.needs_masks)


@contextmanager
def _removed_if_refused(folder: Path) -> Iterator[None]:
    """Removes what the block wrote into a new ``folder`` if it ends with an LceError."""
    is_new = not folder.exists()
    try:
        yield
    except LceError:
        if is_new and not (folder / RESULT).exists():  # of another process, at work on the same
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_outputs(settings: Settings, alphas: list[float], folder: Path) -> None:
    """Raises LceError unless the patch and the edited model can be written to where they are to go."""
    for name in ("patch", "edited"):
        if getattr(settings, name) and len(alphas) > 1:
            raise LceError(f"{name}: is made for one α, got {len(alphas)}; give one α, or no --{name}")
    if settings.patch:
        check_replaceable(settings.patch, "patch")
    if settings.edited:
        check_new(settings.edited)
        for inner in filter(None, (settings.patch, str(folder))):
            if Path(inner).absolute().is_relative_to(Path(settings.edited).absolute()):
                raise LceError(f"{inner}: lies in the --edited folder, which is made anew; name a place elsewhere")


@contextmanager
def _measurement(
    settings: Settings, trainer_options: Mapping[str, Any], pair: Pair, edits: int, folder: Path
) -> Iterator[EditMeasurement | None]:
    """What measures so many ``edits``; None where nothing is to be measured, or the models are of another kind."""
    models = _loaded(settings, pair) if settings.measure else None
    if models is None:
        yield None
        return
    model, reference, tokenizer = models
    evaluator = Evaluator(settings, trainer_options, tokenizer, kind_of(pair.target.folder, model.config))
    logger = TensorBoardLogger(folder, name=None, version="logs")
    logged = partial(log_scores, logger, "edited")
    measurement = EditMeasurement(evaluator, model, reference, settings, edits, logged)
    with measurement.bar:
        yield measurement
    logger.finalize("success")


def _loaded(
    settings: Settings, pair: Pair
) -> tuple[PreTrainedModel, PreTrainedModel | None, PreTrainedTokenizerBase] | None:
    """Target, reference and their tokenizer; None, with the reason on the screen, where they cannot be measured.

    Of a contrast there is no reference.
    """
    try:
        target = load_language_model(pair.target.folder, settings.trust_remote_code)
        if settings.contrast:
            return target[0], None, target[1]
        reference = load_language_model(pair.reference.folder, settings.trust_remote_code)
        if target[1].get_vocab() != reference[1].get_vocab():
            raise LceError("target and reference have different vocabularies, so their scores cannot be compared")
    except LceError as error:
        log.info("nothing is measured: %s", error)
        return None
    return target[0], reference[0], target[1]


def _tried(
    settings: Settings,
    edit: WeightEdit | None,
    alpha: float,
    folder: Path,
    common: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    measurement: EditMeasurement | None,
) -> dict[str, Any]:
    """What the result says of one α, whose patch is written on the way; without an ``edit`` α is 0."""
    scores = measurement.rows(edit, alpha) if measurement else {}
    patch = _write_patch(settings, edit, folder, common, scores) if edit else None
    written = {"patch": str(patch.file), "patch_bytes": patch.file.stat().st_size} if patch else {}
    edited = _edited(patch.moved if patch else {}, shapes)
    return {"alpha": alpha, "scores": scores, "edited": edited, "patch": None, "patch_bytes": 0, **written}


def _write_patch(settings: Settings, edit: WeightEdit, folder: Path, common: Mapping[str, Any], scores: Rows) -> Patch:
    """Write the patch, and the edited model if it is wanted.

    The patch appears first: a run that is killed between the two can be run again.
    """
    moved = {name: {"before": row["before"], "after": row["after"]} for name, row in scores.items()}
    path = Path(settings.patch) if settings.patch else folder / f"alpha{edit.alpha:g}.patch.safetensors"
    checkpoint = Checkpoint(common["target"])
    with new_output(checkpoint, settings.edited) if settings.edited else nullcontext() as edited:
        patch = edit.patch(path, {**common, "scores": moved}, settings.old_values, settings.full_step)
        if edited:
            write_patched(checkpoint, patch, edited)
    return patch


def _edited(moved: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Number and share of the weights that changed, of all that took part, and where they sit."""
    places = by_component({name: moved.get(name, 0) for name in shapes}, shapes)
    count, size = sum(moved.values()), sum(map(prod, shapes.values()))
    return {"count": count, "share": count / size, "by_component": places}


def _provenance(settings: Settings, compared: Pair, pair: Pair, selection: Selection) -> dict[str, Any]:
    """Where the edits of a result come from, as result and patches say it."""

    def named(name: str, model: ModelWeights) -> str:
        return model.folder if name in get_args(Variant) else name

    names: dict[str, Any] = {"target": named(settings.target, pair.target)}
    if settings.contrast:
        names["contrast"] = [named(*each) for each in zip(settings.contrast, compared, strict=True)]
    else:
        names["reference"] = named(settings.reference, pair.reference)
    first = compared.target
    made = read_record(first.folder)
    masks = {"masks": "IMP" if isinstance(first, Subnetwork) else "one-shot magnitude"}
    return {
        **names,
        "localization": selection.localization,
        "strategy": settings.strategy,
        "sparsity": made.get("sparsity", first.sparsity),
        "seed": settings.seed,
        "selected": {"count": selection.count, "share": selection.share},
        **(masks if first.is_pruned else {}),
    }
