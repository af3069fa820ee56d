"""A study as a list of cells: what is trained, measured, compared and edited, from the lists of its settings.

A cell is one result. Its name is made from everything that the result depends on, so a cell that exists under its
name needs no second run, and a changed setting asks for a new one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from lce.config import Settings
from lce.edit.strategies import STRATEGIES
from lce.foundations.errors import LceError
from lce.foundations.seeds import derive
from lce.study.context import digest_of
from lce.study.direction_study import DirectionStudy
from lce.study.feature_study import FeatureStudy
from lce.study.head_study import HeadStudy
from lce.study.settings import ANTI_STEREOTYPICAL, STEREOTYPICAL, EditBlock, StudySettings
from lce.study.study_checks import check_study

DIRECTION = "direction"
"""What the localization of a direction begins with; its name follows."""
DIRECTIONS = ("directions", "random-directions")


@dataclass(frozen=True)
class Cell:
    """One result of a study; what does not apply to its kind is None.

    Kinds: train (one round of pruning), measure (an unedited subnetwork), compare (where target and reference
    differ), overlap (of masks and selections over seeds), edit (an edited model), finetune (one on a task), features
    (the base model with features scaled or a direction taken out; without a localization, unedited), heads (a CLIP with
    attention heads edited; without a count, unedited), random-heads (the same edit of random sets of heads), directions
    (a vision-language model with a direction edited; without a strategy, unedited), random-directions (the same edit of
    random directions).
    """

    kind: Literal[
        "train", "measure", "compare", "overlap", "edit", "finetune", "features", "heads", "random-heads", "directions",
        "random-directions",
    ]  # fmt: skip
    seed: int | None = None
    sparsity: float | None = None
    variant: str | None = None
    target: str | None = None
    reference: str | None = None
    localization: str | None = None
    share: float | None = None
    count: int | str | None = None
    strategy: str | None = None
    alpha: float | None = None
    control: str | None = None
    draw: int | None = None
    last_layers: int | None = None
    task: str | None = None
    attribute: str | None = None

    def known(self) -> dict[str, Any]:
        """The fields that apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def k(self) -> float | str | None:
        """The size of its value-based selection: a share if it is a float, a number, or mask: as the mask-based one."""
        return self.share if self.count is None else self.count


def expand(settings: StudySettings) -> list[Cell]:
    """All cells of a study, each once, seed by seed.

    Raises:
        LceError: the settings name a variant or sparsity that is not trained, or hold an impossible combination.
    """
    check_study(settings)
    for i, block in enumerate(settings.edits):
        if not any(_edits(block, 0, [])):
            raise LceError(
                f"edits[{i}]: asks for no edit: each list needs a value, and mask-switch the localization mask"
            )
    levels = [0.0, *settings.sparsities]
    cells = []
    for seed in settings.seeds:
        for variant in settings.variants:
            cells += [Cell("train", seed, sparsity, variant) for sparsity in levels]
            cells += [Cell("measure", seed, sparsity, variant) for sparsity in levels]
        for sparsity in settings.sparsities if {STEREOTYPICAL, ANTI_STEREOTYPICAL} <= set(settings.variants) else []:
            cells.append(Cell("compare", seed, sparsity, target=STEREOTYPICAL, reference=ANTI_STEREOTYPICAL))
        is_tuned = settings.downstream.seeds is None or seed in settings.downstream.seeds
        tasks = settings.downstream.tasks if is_tuned else []
        cells += [cell for block in settings.edits for cell in _edits(block, seed, tasks)]
    if len(settings.seeds) > 1 and settings.variants:
        cells += [Cell("overlap", sparsity=sparsity) for sparsity in settings.sparsities]
    if settings.features.is_asked:
        cells.append(Cell("features"))
        cells += [cell for seed in settings.seeds for cell in _feature_edits(settings.features, seed)]
    cells += [cell for seed in settings.seeds for cell in _head_edits(settings.heads, seed)]
    cells += _direction_edits(settings.directions, settings.seeds)
    return list(dict.fromkeys(cells))


def _feature_edits(block: FeatureStudy, seed: int) -> Iterator[Cell]:
    for rule in block.rules:
        for count, scale in product([None] if rule == "counts" else block.count, block.scale):
            for control, draw in _controls(block):
                yield Cell("features", seed, localization=rule, count=count, alpha=scale, control=control, draw=draw)
    for name, alpha in product(block.directions, block.alpha) if "none" in block.controls else []:
        yield Cell("features", seed, localization=f"{DIRECTION} {name}", alpha=alpha, control="none")


def _head_edits(block: HeadStudy, seed: int) -> Iterator[Cell]:
    kinds: list[Literal["heads", "random-heads"]] = ["heads", "random-heads"] if block.random_sets else ["heads"]
    for attribute in block.attributes:
        yield Cell("heads", seed, attribute=attribute)
        for size, edit, kind in product(block.sizes, block.edits, kinds):
            yield Cell(kind, seed, count=size, strategy=edit, attribute=attribute)


def _direction_edits(block: DirectionStudy, seeds: list[int]) -> Iterator[Cell]:
    """Only the random directions depend on the seed."""
    if block.is_asked:
        yield Cell("directions")
    for edit, alpha in product(block.edits, block.alpha):
        yield Cell("directions", strategy=edit, alpha=alpha)
        for seed in seeds if block.random_directions else []:
            yield Cell("random-directions", seed, strategy=edit, alpha=alpha)


def _edits(block: EditBlock, seed: int, tasks: list[str]) -> Iterator[Cell]:
    for (target, reference), sparsity, localization in product(block.pairs, block.sparsities, block.localizations):
        pair = Cell("edit", seed, sparsity, target=target, reference=reference)
        edits = product(_sizes(block, localization), _strengths(block, localization))
        for (size, (strategy, alpha)), layers in product(edits, block.last_layers):
            for control, draw in _controls(block):
                known = pair.known() | {"localization": localization, **size, "strategy": strategy, "alpha": alpha}
                cell = Cell(**known, control=control, draw=draw, last_layers=layers)
                yield cell
                for task in tasks if block.downstream and control == "none" else []:
                    yield Cell(**cell.known() | {"kind": "finetune", "task": task})
        for task in tasks if block.downstream else []:
            yield Cell("finetune", seed, sparsity, variant=target, task=task)


def _strengths(block: EditBlock, localization: str) -> Iterator[tuple[str, float | None]]:
    for name in block.strategies:
        if STRATEGIES[name].is_linear:
            yield from ((name, alpha) for alpha in block.alpha)
        elif not STRATEGIES[name].needs_masks or localization == "mask":
            yield name, None


def _sizes(block: EditBlock, localization: str) -> list[dict[str, Any]]:
    if localization != "value":
        return [{}]
    return [*({"count": count} for count in block.count), *({"share": share} for share in block.share)]


def _controls(block: EditBlock | FeatureStudy) -> Iterator[tuple[str, int | None]]:
    for control in block.controls:
        yield from [(control, None)] if control == "none" else [(control, draw) for draw in range(block.draws)]


def settings_for(study: StudySettings, cell: Cell) -> Settings:
    """The settings of one experiment with which ``cell`` can be made alone."""
    shared = {f.name: getattr(study, f.name) for f in fields(Settings) if hasattr(study, f.name)}
    own: dict[str, Any] = {"seed": cell.seed, "sparsity": cell.sparsity, "variant": cell.variant}
    if cell.variant in study.untrained:
        own["train"] = replace(study.train, steps=1, warmup_steps=0, learning_rate=0.0)  # which changes no weight
    return Settings(**shared | {name: value for name, value in own.items() if value is not None})


def cell_name(study: StudySettings, context: dict[str, Any], cell: Cell) -> str:
    """A readable name that differs wherever the result may differ; ``context`` is that of `context_of`."""
    about = _shared(study, context, cell) | {"sparsities": [s for s in study.sparsities if s <= (cell.sparsity or 0)]}
    if untrained := {cell.variant, cell.target, cell.reference} & set(study.untrained):
        about["untrained"] = sorted(map(str, untrained))
    if cell.kind in ("measure", "edit", "features"):
        about["evaluation"] = context["evaluation"]
    if cell.kind == "features":
        features = context["features"]
        about["features"] = features if cell.localization else features.get("model")
    if cell.attribute:
        about["heads"] = context["heads"][cell.attribute]
    if cell.kind in DIRECTIONS:
        about["directions"] = context["directions"]
    if cell.kind == "random-directions":
        about["random_directions"] = study.directions.random_directions
    if cell.kind == "random-heads":
        about["random_sets"] = study.heads.random_sets
    if cell.kind in ("compare", "overlap"):
        about["k"] = study.k
    if cell.kind == "overlap":
        about |= {"seeds": study.seeds, "variants": study.variants}
        about |= {"untrained": study.untrained} if study.untrained else {}
    if cell.kind == "finetune":
        about["downstream"] = asdict(study.downstream) | {"tasks": digest_of(Path(str(cell.task))), "seeds": None}
    known = cell.known()
    parts = [Path(value).name if isinstance(value, str) else f"{name}{value:g}" for name, value in known.items()]
    name = "-".join(parts).replace(" ", "-") if cell.kind == "features" or cell.attribute else "-".join(parts)
    return f"{name}-{derive(str(about), str(known)) % 16**8:08x}"


def _shared(study: StudySettings, context: dict[str, Any], cell: Cell) -> dict[str, Any]:
    """What the cells of a unit share; those of pictures depend on no text and no training, and on the base only where
    it is their model.
    """
    if cell.kind in DIRECTIONS or (cell.attribute and study.heads.model):
        return {}
    found: dict[str, Any] = context["base" if cell.attribute else "shared"]
    return found
