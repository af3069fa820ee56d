"""The main job: localise where target and reference differ, edit the target there, measure, write the patch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import yaml
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tqdm import tqdm

from lce import diff
from lce.callbacks import EditCallback
from lce.checkpoint import fingerprint, resolve
from lce.config import Settings
from lce.data.module import ROLES, evaluation_loader
from lce.diff import Selection
from lce.edits import LINEAR, Changes, edit
from lce.errors import LceError
from lce.figures import alpha_curves, heat_map
from lce.files import read_json, replaced_file, write_json
from lce.metrics.suite import BiasSuite, Scores
from lce.models import MaskedLanguageModel, load_masked_lm, prunable_parameters
from lce.patch import Patch
from lce.paths import RESULT, SCORES, level_folder, variant_folder
from lce.pruning import encoded_examples
from lce.seeds import derive
from lce.subnetwork import Subnetwork, load_subnetwork, read_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

EVALUATION_BATCH = 32
"""Held-out sentences per batch; sorted by length, they hold little padding."""


class Evaluator:
    """Scores models that share one tokenizer, all on the same sentences with the same masks."""

    def __init__(self, settings: Settings, trainer_options: Mapping[str, Any], tokenizer: Any) -> None:
        texts = encoded_examples(settings, None, tokenizer, evaluation=True)
        self.sentences = evaluation_loader(texts, tokenizer, EVALUATION_BATCH, settings.train.mask_probability)
        self.suite = BiasSuite(settings.evaluation, tokenizer, settings.data.downloads)
        self.options = dict(trainer_options)
        self.kept_scores = Path(settings.experiment) / SCORES
        self.measure = [asdict(part) for part in (settings.evaluation, settings.data)] + [
            settings.train.max_length,
            settings.train.mask_probability,
        ]

    def __call__(
        self,
        model: PreTrainedModel,
        changes: Changes | None = None,
        logger: TensorBoardLogger | None = None,
        **options: Any,
    ) -> Scores:
        """Scores of ``model`` with ``changes`` applied for the while; the ``options`` are those of `EditCallback`."""
        callback = EditCallback(changes, self.suite, **options)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(
            **(self.options | quiet), logger=logger or False, callbacks=[callback], use_distributed_sampler=False
        )
        trainer.validate(MaskedLanguageModel(model), self.sentences, verbose=False)
        return callback.scores

    def unedited(self, model: PreTrainedModel) -> Scores:
        """As calling it, but the scores of the same weights by the same measure are kept in the run and read again."""
        key = derive(fingerprint(dict(model.named_parameters())), str(self.measure))
        path = self.kept_scores / f"{key:016x}.json"
        if not path.exists():
            write_json(path, self(model))
        return dict(read_json(path))


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
class Comparison:
    """A target model with its subnetwork, the reference's subnetwork, and what was selected between them."""

    model: PreTrainedModel
    tokenizer: Any
    target: Subnetwork
    reference: Subnetwork
    selection: Selection


def compare(settings: Settings) -> Comparison:
    """Load target and reference, and localise (or read the given selection)."""
    folders = [find_model(name, settings) for name in (settings.target, settings.reference)]
    model, tokenizer = load_masked_lm(folders[0])
    parameters = prunable_parameters(model)
    target, reference = (load_subnetwork(folder, parameters) for folder in folders)
    if settings.selection:
        selection = Selection.load(Path(settings.selection))
    else:
        selection = diff.localize(settings.localization, target, reference, settings.k)
    return Comparison(model, tokenizer, target, reference, selection)


def run_localize(settings: Settings) -> tuple[Path, Selection]:
    """Write the selection and its heat map; return the selection's file and the selection."""
    selection = compare(settings).selection
    default = (
        Path(settings.experiment) / f"seed-{settings.seed}" / "selections" / f"{_name(settings, selection)}.safetensors"
    )
    path = Path(settings.output) if settings.output else default
    selection.save(path)
    heat_map(selection, path.with_suffix(".png"))
    _save_config(path.with_suffix(".yaml"), settings)
    return path, selection


def run_edit(settings: Settings, trainer_options: Mapping[str, Any]) -> Path:
    """Edit the target for every α, measure, write patches and figures; return the path of the result.

    A result that exists for the same settings and models is not made again.

    Raises:
        LceError: target, reference, selection and strategy do not fit, or no α changes anything.
    """
    alphas = _checked_alphas(settings)
    pair = compare(settings)
    default = (
        Path(settings.experiment) / f"seed-{settings.seed}" / "edits" / _name(settings, pair.selection, edited=True)
    )
    folder = Path(settings.output) if settings.output else default
    identity = asdict(settings) | {"models": [pair.target.fingerprint, pair.reference.fingerprint]}
    result_file = folder / RESULT
    if result_file.exists():
        if read_json(result_file).get("identity") == _identity(identity):
            log.info("%s exists already; nothing to do", result_file)
            return result_file
        raise LceError(f"{folder}: holds the result of other settings or models; remove it or name another --output")
    planned = {alpha: _plan(settings, pair, alpha) for alpha in alphas}
    folder.mkdir(parents=True, exist_ok=True)
    _save_config(folder / "config.yaml", settings)
    common = {
        "target": pair.target.folder,
        "reference": pair.reference.folder,
        "localization": pair.selection.localization,
        "strategy": settings.strategy,
        "sparsity": read_record(pair.target.folder).get("sparsity", pair.target.mask.sparsity),
        "seed": settings.seed,
        "selected": {"count": pair.selection.count, "share": pair.selection.share},
    }
    edits = _measure(settings, trainer_options, pair, planned, folder, common)
    heat_map(pair.selection, folder / "selection.png")
    if len(edits) > 1:
        alpha_curves(edits, folder / "alpha.png")
    scores = edits[0] if len(edits) == 1 else {"edits": edits}
    write_json(result_file, {**common, **scores, "identity": _identity(identity)})
    return result_file


@dataclass(frozen=True)
class Plan:
    """The changes of one edit and of its uninformed controls; no changes where α = 0."""

    changes: Changes
    controls: list[Changes]


def _checked_alphas(settings: Settings) -> list[float]:
    alphas = list(dict.fromkeys(settings.alpha)) if settings.strategy in LINEAR else [1.0]
    if not any(alphas):
        raise LceError("alpha: 0 changes nothing; give at least one other value")
    return alphas


def _plan(settings: Settings, pair: Comparison, alpha: float) -> Plan:
    if alpha == 0:
        return Plan({}, [])
    changes = edit(settings.strategy, pair.selection, pair.target, pair.reference, alpha)
    draws = (
        diff.uninformed(pair.selection, pair.target, pair.reference, settings.strategy, derive(settings.seed, draw))
        for draw in range(settings.uninformed_draws)
    )
    return Plan(changes, [edit(settings.strategy, draw, pair.target, pair.reference, alpha) for draw in draws])


def _measure(
    settings: Settings,
    trainer_options: Mapping[str, Any],
    pair: Comparison,
    planned: dict[float, Plan],
    folder: Path,
    common: dict[str, Any],
) -> list[dict[str, Any]]:
    evaluate = Evaluator(settings, trainer_options, pair.tokenizer)
    logger = TensorBoardLogger(folder, name=None, version="logs")
    total = 2 + sum(bool(plan.changes) + len(plan.controls) for plan in planned.values())
    with tqdm(total=total, desc="Evaluations") as bar:

        def scored(title: str, score: Callable[..., Scores], *arguments: Any, **options: Any) -> Scores:
            bar.set_postfix_str(title)
            scores = score(*arguments, **options)
            bar.update()
            return scores

        reference = scored("reference", evaluate.unedited, load_masked_lm(pair.reference.folder)[0])
        before = scored("target", evaluate.unedited, pair.model)
        edits = []
        for alpha, plan in planned.items():
            title = f"α = {alpha:g}"
            after = before
            if plan.changes:
                after = scored(title, evaluate, pair.model, plan.changes, logger, alpha=alpha, tag="edited")
            controls = [
                scored(f"{title}, uninformed", evaluate, pair.model, changes, with_original=draw == 0)
                for draw, changes in enumerate(plan.controls)
            ]
            scores = {name: _row(name, before, after, controls, reference) for name in before}
            patch = _write_patch(
                pair, plan, folder / f"alpha{alpha:g}.patch.safetensors", {**common, "alpha": alpha}, scores
            )
            edited = _edited(pair.selection, plan.changes)
            edits.append({"alpha": alpha, "scores": scores, "edited": edited, **patch})
    logger.finalize("success")
    return edits


def _row(name: str, before: Scores, after: Scores, controls: list[Scores], reference: Scores) -> dict[str, Any]:
    draws = [control[name]["value"] for control in controls if name in control]
    return {
        "before": before[name]["value"],
        "after": after[name]["value"],
        "uninformed": mean(draws) if draws else None,
        "uninformed_std": stdev(draws) if len(draws) > 1 else None,
        "uninformed_draws": draws,
        "reference": reference[name]["value"],
        "n": before[name]["n"],
        **(
            {"p_value_before": before[name]["p_value"], "p_value_after": after[name]["p_value"]}
            if "p_value" in before[name]
            else {}
        ),
    }


def _edited(selection: Selection, changes: Changes) -> dict[str, Any]:
    """Number and share of the weights that changed, of all prunable ones, and where they sit."""
    empty = next(iter(selection.indices.values()))[:0]
    indices = {name: changes[name].indices if name in changes else empty for name in selection.shapes}
    changed = Selection(indices, selection.shapes, selection.localization, selection.target, selection.reference)
    return {"count": changed.count, "share": changed.share, "by_component": changed.by_component()}


def _write_patch(
    pair: Comparison, plan: Plan, path: Path, about: dict[str, Any], scores: dict[str, Any]
) -> dict[str, Any]:
    if not plan.changes:
        return {"patch": None, "patch_bytes": 0}
    moved = {name: {"before": row["before"], "after": row["after"]} for name, row in scores.items()}
    patch = Patch.create(plan.changes, pair.target.weights, {**about, "scores": moved})
    patch.save(path)
    return {"patch": str(path), "patch_bytes": path.stat().st_size}


def _name(settings: Settings, selection: Selection, edited: bool = False) -> str:
    short = derive(str(asdict(settings)), selection.target, selection.reference) % 16**6
    parts = [Path(settings.target).name, Path(settings.reference).name, selection.localization]
    if edited:
        parts += [settings.strategy, *([f"alpha{settings.alpha[0]:g}"] if len(settings.alpha) == 1 else ["alphas"])]
    return "-".join([*parts, f"{short:06x}"])


def _identity(content: dict[str, Any]) -> str:
    return f"{derive(str(content)):016x}"


def _save_config(path: Path, settings: Settings) -> None:
    with replaced_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(asdict(settings), sort_keys=False, allow_unicode=True), encoding="utf-8")
