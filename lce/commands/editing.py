"""The main job: localise where target and reference differ, edit the target there, measure, write the patch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import TensorBoardLogger
from tqdm import tqdm

from lce.checks import check_alphas
from lce.config import LINEAR, Settings
from lce.data.module import ROLES
from lce.edit.callback import log_scores
from lce.edit.weight_edit import changed_values, edit
from lce.evaluation.curves import alpha_curves
from lce.evaluation.evaluator import Evaluator
from lce.foundations.errors import LceError
from lce.foundations.files import read_json, save_config, write_json
from lce.foundations.overwriting import check_own_folder, check_selection_file
from lce.foundations.paths import CONFIG, RESULT, level_folder, variant_folder
from lce.foundations.seeds import derive
from lce.localize import weights as diff
from lce.localize.controls import uninformed
from lce.localize.heat_map import save_heat_map
from lce.localize.selection import Selection
from lce.metrics.suite import Scores
from lce.models.layers import prunable_parameters
from lce.models.loading import load_masked_lm
from lce.patch import Patch
from lce.storage.changes import Changes
from lce.storage.hub import resolve
from lce.storage.in_memory import Subnetwork, load_subnetwork, read_record
from lce.storage.torch_bridge import fingerprint
from lce.training.trainer_options import numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

LEFT_OUT_OF_FURTHER_DRAWS = ("crows_pairs_original", "pseudo_perplexity")
"""Metrics that take longer than all others together: of the uninformed edits, only the first is measured by them."""


def find_model(name: str, settings: Settings) -> Path:
    """The folder of a target or reference: a variant of this experiment at its sparsity, a folder, or a hub model."""
    if name not in ROLES:
        return resolve(name)
    folder = level_folder(variant_folder(settings.experiment, settings.seed, name), settings.sparsity)
    if not folder.exists():
        raise LceError(
            f"{folder}: no such subnetwork; `lce train --variant {name}` with the same configuration makes it "
            f"(sparsities: {settings.sparsities})"
        )
    return folder


@dataclass(frozen=True)
class Pair:
    """A target model and a reference model, and the subnetwork of each."""

    model: PreTrainedModel
    reference_model: PreTrainedModel
    tokenizer: Any
    target: Subnetwork
    reference: Subnetwork


def load_pair(settings: Settings) -> Pair:
    """Load target and reference.

    Raises:
        LceError: they are missing, of different shape or vocabulary, or the same.
    """
    folders = [find_model(name, settings) for name in (settings.target, settings.reference)]
    (model, tokenizer), (reference_model, reference_tokenizer) = (
        load_masked_lm(folder, settings.trust_remote_code) for folder in folders
    )
    target, reference = (
        load_subnetwork(folder, prunable_parameters(part))
        for folder, part in zip(folders, (model, reference_model), strict=True)
    )
    diff.check_pair(target, reference)
    if tokenizer.get_vocab() != reference_tokenizer.get_vocab():
        raise LceError(f"{folders[0]} and {folders[1]}: have different vocabularies and cannot be compared")
    return Pair(model, reference_model, tokenizer, target, reference)


def select(settings: Settings, pair: Pair) -> Selection:
    """Localise, or read the given selection."""
    if settings.selection:
        return Selection.load(Path(settings.selection))
    return diff.localize(settings.localization, pair.target, pair.reference, settings.k)


def run_localize(settings: Settings) -> tuple[Path, Selection]:
    """Write the selection and its heat map; return the selection's file and the selection."""
    if settings.output:
        check_selection_file(Path(settings.output), {".png": "heat map", ".yaml": "settings file of localize"})
    selection = select(settings, load_pair(settings))
    default = (
        Path(settings.experiment) / f"seed-{settings.seed}" / "selections" / f"{_name(settings, selection)}.safetensors"
    )
    path = Path(settings.output) if settings.output else default
    selection.save(path)
    save_heat_map(selection, path.with_suffix(".png"))
    save_config(path.with_suffix(".yaml"), asdict(settings), "localize")
    return path, selection


def run_edit(settings: Settings, trainer_options: Mapping[str, Any]) -> Path:
    """Edit the target for every α, measure, write patches and figures; return the path of the result.

    A result that exists for the same settings and models is not made again.

    Raises:
        LceError: target, reference, selection and strategy do not fit, or no α changes anything.
    """
    alphas = _checked_alphas(settings)
    pair = load_pair(settings)
    selection = select(settings, pair)
    default = Path(settings.experiment) / f"seed-{settings.seed}" / "edits" / _name(settings, selection, edited=True)
    folder = Path(settings.output) if settings.output else default
    if settings.output and not (folder / RESULT).exists():
        check_own_folder(folder, CONFIG, "edit")
    identity = _varying(settings) | {
        "alpha": alphas,
        "models": [pair.target.fingerprint, pair.reference.fingerprint],
        "selection": fingerprint(selection.indices),
        "trainer": numerics(trainer_options),
    }
    result_file = folder / RESULT
    if result_file.exists():
        known = read_json(result_file)
        if isinstance(known, dict) and known.get("identity") == _identity(identity):
            log.info("%s exists already; nothing to do", result_file)
            return result_file
        raise LceError(f"{folder}: holds the result of other settings or models; remove it or name another --output")
    first = next(alpha for alpha in alphas if alpha)
    edit(settings.strategy, selection, pair.target, pair.reference, first)  # refused before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    save_config(folder / CONFIG, asdict(settings) | {"trainer": dict(trainer_options)}, "edit")
    common = {
        "target": pair.target.folder,
        "reference": pair.reference.folder,
        "localization": selection.localization,
        "strategy": settings.strategy,
        "sparsity": read_record(pair.target.folder).get("sparsity", pair.target.mask.sparsity),
        "seed": settings.seed,
        "selected": {"count": selection.count, "share": selection.share},
    }
    edits = _measure(settings, trainer_options, pair, selection, alphas, folder, common)
    save_heat_map(selection, folder / "selection.png")
    if len(edits) > 1:
        alpha_curves(edits, folder / "alpha.png")
    scores = edits[0] if len(edits) == 1 else {"edits": edits}
    write_json(result_file, {**common, **scores, "identity": _identity(identity)})
    return result_file


def _checked_alphas(settings: Settings) -> list[float]:
    if settings.strategy not in LINEAR:
        return [1.0]
    alphas = list(dict.fromkeys(settings.alpha))
    check_alphas(alphas)
    return alphas


def _measure(
    settings: Settings,
    trainer_options: Mapping[str, Any],
    pair: Pair,
    selection: Selection,
    alphas: list[float],
    folder: Path,
    common: dict[str, Any],
) -> list[dict[str, Any]]:
    evaluate = Evaluator(settings, trainer_options, pair.tokenizer)
    logger = TensorBoardLogger(folder, name=None, version="logs")
    edits = []
    with tqdm(
        total=2 + sum(map(bool, alphas)) * (1 + settings.uninformed_draws), desc="Evaluations", disable=None
    ) as bar:

        def scored(title: str, score: Callable[..., Scores], *arguments: Any, **options: Any) -> Scores:
            bar.set_postfix_str(title)
            scores = score(*arguments, **options)
            bar.update()
            return scores

        reference = scored("reference", evaluate.unedited, pair.reference_model)
        before = scored("target", evaluate.unedited, pair.model)
        for alpha in alphas:
            changes = edit(settings.strategy, selection, pair.target, pair.reference, alpha) if alpha else {}
            title = f"α = {alpha:g}"
            if changes:
                after = scored(title, evaluate, pair.model, changes, logger, alpha=alpha, tag="edited")
            else:
                after = before
                log_scores(logger, "edited", alpha, before)
            controls = [] if changes else [before]
            for draw in range(settings.uninformed_draws if changes else 0):
                control = _control(settings, pair, selection, alpha, draw)
                left_out = LEFT_OUT_OF_FURTHER_DRAWS if draw else ()
                controls.append(scored(f"{title}, uninformed", evaluate, pair.model, control, leave_out=left_out))
            scores = {name: _row(name, before, after, controls, reference) for name in before}
            patch_file = folder / f"alpha{alpha:g}.patch.safetensors"
            patch = _write_patch(pair, changes, patch_file, {**common, "alpha": alpha}, scores)
            edits.append({"alpha": alpha, "scores": scores, "edited": _edited(selection, changes), **patch})
    logger.finalize("success")
    return edits


def _control(settings: Settings, pair: Pair, selection: Selection, alpha: float, draw: int) -> Changes:
    """The same edit of as many weights, drawn at random."""
    seed = derive(settings.seed, draw)
    drawn = uninformed(selection, pair.target, pair.reference, settings.strategy, seed)
    return dict(changed_values(settings.strategy, drawn, pair.target, pair.reference, alpha))


def _row(name: str, before: Scores, after: Scores, controls: list[Scores], reference: Scores) -> dict[str, Any]:
    draws = [control[name]["value"] for control in controls if name in control]
    row = {
        "before": before[name]["value"],
        "before_interval": before[name]["interval"],
        "after": after[name]["value"],
        "after_interval": after[name]["interval"],
        "uninformed": mean(draws) if draws else None,
        "uninformed_std": stdev(draws) if len(draws) > 1 else None,
        "uninformed_draws": draws,
        "reference": reference[name]["value"],
        "n": before[name]["n"],
    }
    if "p_value" in before[name]:
        row |= {"p_value_before": before[name]["p_value"], "p_value_after": after[name]["p_value"]}
    return row


def _edited(selection: Selection, changes: Changes) -> dict[str, Any]:
    """Number and share of the weights that changed, of all prunable ones, and where they sit."""
    empty = next(iter(selection.indices.values()))[:0]
    indices = {name: changes[name].moved if name in changes else empty for name in selection.shapes}
    changed = Selection(indices, selection.shapes, selection.localization, selection.target, selection.reference)
    return {"count": changed.count, "share": changed.share, "by_component": changed.by_component()}


def _write_patch(
    pair: Pair, changes: Changes, path: Path, about: dict[str, Any], scores: dict[str, Any]
) -> dict[str, Any]:
    if not changes:
        return {"patch": None, "patch_bytes": 0}
    moved = {name: {"before": row["before"], "after": row["after"]} for name, row in scores.items()}
    patch = Patch.create(changes, pair.target.weights, {**about, "scores": moved})
    patch.save(path)
    return {"patch": str(path), "patch_bytes": path.stat().st_size}


def _name(settings: Settings, selection: Selection, edited: bool = False) -> str:
    parts = [Path(settings.target).name, Path(settings.reference).name, selection.localization]
    varying = _varying(settings)
    if edited:
        parts.append(settings.strategy)
        if settings.strategy in LINEAR:
            parts.append(f"alpha{settings.alpha[0]:g}" if len(settings.alpha) == 1 else "alphas")
        else:
            del varying["alpha"]
    short = derive(str(varying), selection.target, selection.reference) % 16**6
    return "-".join([*parts, f"{short:06x}"])


def _varying(settings: Settings) -> dict[str, Any]:
    """The settings that a result can depend on."""
    return {key: value for key, value in asdict(settings).items() if key != "trust_remote_code"}


def _identity(content: dict[str, Any]) -> str:
    return f"{derive(str(content)):016x}"
