"""A study as a list of cells: what is trained, measured, compared and edited, from the lists of its settings.

A cell is one result. Its name is made from everything that the result depends on, so a cell that exists under its
name needs no second run, and a changed setting asks for a new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

from lce import training
from lce.config import Settings
from lce.data import prepare
from lce.data.cda import Variant
from lce.data.prepare import DataSettings
from lce.edits import LINEAR
from lce.errors import LceError
from lce.experiments.downstream import DownstreamSettings
from lce.metrics.suite import EvaluationSettings
from lce.seeds import derive
from lce.training import OptimisationSettings

Strategy = Literal["linear", "pruning", "mask-switch"]
Control = Literal["none", "uninformed", "matched"]
STEREOTYPICAL, ANTI_STEREOTYPICAL, NEUTRAL = get_args(Variant)
BOTH_WAYS = [[STEREOTYPICAL, ANTI_STEREOTYPICAL], [ANTI_STEREOTYPICAL, STEREOTYPICAL]]
"""[target, reference] of the two biased variants."""
ALPHAS = [-4.0, -2.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]
"""Strengths from far away from the reference to far beyond it (figure 6)."""


@dataclass
class EditBlock:
    """Edits of a study: every combination of the lists that makes sense. What several blocks hold is run once."""

    pairs: list[list[str]] = field(default_factory=lambda: list(BOTH_WAYS))
    """[target, reference], two variants each."""
    sparsities: list[float] = field(default_factory=lambda: [0.3])
    """Sparsities of target and reference [share of prunable weights]."""
    localizations: list[Literal["mask", "value"]] = field(default_factory=lambda: ["mask", "value"])
    """Localisations, as in `lce edit`."""
    k: list[int | float | Literal["mask"]] = field(default_factory=lambda: [0.1])
    """Sizes of value-based selections: shares, counts, or mask: as many as the mask-based one has."""
    strategies: list[Strategy] = field(default_factory=lambda: ["linear"])
    """Edits; linear is interpolation or extrapolation by each α."""
    alpha: list[float] = field(default_factory=lambda: [2.0])
    """Strengths α of linear edits."""
    controls: list[Control] = field(default_factory=lambda: ["none"])
    """none: the edit itself; uninformed: as many weights at random; matched: as many of each parameter at random, so
    that layers and components get what the informed selection gives them."""
    draws: int = 1
    """Random selections of each control."""
    last_layers: list[int | None] = field(default_factory=lambda: [None])
    """Edit only what is selected in so many last layers; null edits all."""
    downstream: bool = False
    """Also fine-tune the edited models, and the unedited targets, on the tasks of `downstream`."""


def paper_edits() -> list[EditBlock]:
    """The paper's edits (its figures 4 to 7 and tables 2, 5 and 8), with controls, and the last layers alone."""
    neutral = [[NEUTRAL, STEREOTYPICAL], [NEUTRAL, ANTI_STEREOTYPICAL]]
    all_strategies: list[Strategy] = ["linear", "pruning", "mask-switch"]
    sizes: list[int | float | Literal["mask"]] = ["mask", 0.01, 0.05, 0.1, 0.2, 0.4, 1.0]
    return [
        EditBlock(sparsities=[0.1, 0.2, 0.3, 0.4], strategies=all_strategies, alpha=[0.5, 1.0, 2.0, -2.0]),
        EditBlock(strategies=["linear", "pruning"], alpha=[1.0, 2.0], controls=["uninformed", "matched"]),
        EditBlock(pairs=[*BOTH_WAYS, *neutral], alpha=ALPHAS),
        EditBlock(localizations=["value"], k=sizes, strategies=["linear", "pruning"], alpha=[-2.0, 0.5, 1.0, 2.0]),
        EditBlock(alpha=[1.0, 2.0], last_layers=[1, 2]),
        EditBlock(pairs=BOTH_WAYS[:1], strategies=all_strategies, alpha=[0.5, 1.0, 2.0, -2.0], downstream=True),
    ]


@dataclass
class StudySettings:
    """A study: variants × seeds × sparsities are trained, then pairs × localisations × k × strategies × α edited."""

    experiment: str = "runs/study"
    """Folder for all that the study makes; on a cluster, one that every node sees."""
    base: str = "checkpoints/lce-bert-mini"
    """Pretrained model θ0: a folder, or a name on the Hugging Face hub."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3])
    """Seeds of order, masking, dropout and random selections."""
    variants: list[Variant] = field(default_factory=lambda: list(get_args(Variant)))
    """Variants of the corpus that models are trained on."""
    sparsities: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4])
    """Sparsities to prune to, one round each after the dense one [share of prunable weights]."""
    sparsity: float = 0.3
    """Sparsity at which the report shows what is shown at one sparsity only."""
    k: int | float = 0.1
    """Size of the value-based selection that the report shows where k is not what varies: a share, or a count."""
    data: DataSettings = field(default_factory=DataSettings)
    """Text to train and evaluate on."""
    train: OptimisationSettings = field(default_factory=OptimisationSettings)
    """How each subnetwork is trained."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """How bias is measured."""
    edits: list[EditBlock] = field(default_factory=paper_edits)
    """Blocks of edits, each every combination of its lists: pairs, sparsities, localizations, k, strategies, alpha,
    controls, draws, last_layers, and downstream (true or false). By default the paper's; configs/study-race.yaml has
    two blocks of its own."""
    downstream: DownstreamSettings = field(default_factory=DownstreamSettings)
    """How edited models are fine-tuned on tasks of sentence pairs."""
    cpus_per_task: float = 1
    """Cores of each of the tasks that run side by side."""
    gpus_per_task: float = 0
    """GPUs of each task; 0.5 lets two share one."""
    cells_per_task: int = 40
    """Edits of one pair that go to a worker together."""
    address: str | None = None
    """Ray cluster to run on ("auto", or ray://host:10001); by default one is started on this machine."""


@dataclass(frozen=True)
class Cell:
    """One result of a study; what does not apply to its kind is None.

    Kinds: train (one round of pruning), measure (an unedited subnetwork), compare (where target and reference
    differ), overlap (of masks and selections over seeds), edit (an edited model), finetune (one on a task).
    """

    kind: Literal["train", "measure", "compare", "overlap", "edit", "finetune"]
    seed: int | None = None
    sparsity: float | None = None
    variant: str | None = None
    target: str | None = None
    reference: str | None = None
    localization: str | None = None
    k: int | float | str | None = None
    strategy: str | None = None
    alpha: float | None = None
    control: str | None = None
    draw: int | None = None
    last_layers: int | None = None
    task: str | None = None

    def known(self) -> dict[str, Any]:
        """The fields that apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def expand(settings: StudySettings) -> list[Cell]:
    """All cells of a study, each once, seed by seed.

    Raises:
        LceError: the settings name a variant or sparsity that is not trained, or hold an impossible combination.
    """
    _check(settings)
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
    if len(settings.seeds) > 1:
        cells += [Cell("overlap", sparsity=sparsity) for sparsity in settings.sparsities]
    return list(dict.fromkeys(cells))


def _edits(block: EditBlock, seed: int, tasks: list[str]) -> Iterator[Cell]:
    for (target, reference), sparsity, localization in product(block.pairs, block.sparsities, block.localizations):
        pair = Cell("edit", seed, sparsity, target=target, reference=reference)
        edits = product(block.k if localization == "value" else [None], _strengths(block, localization))
        for (k, (strategy, alpha)), layers in product(edits, block.last_layers):
            for control, draw in _controls(block):
                known = pair.known() | {"localization": localization, "k": k, "strategy": strategy, "alpha": alpha}
                cell = Cell(**known, control=control, draw=draw, last_layers=layers)
                yield cell
                for task in tasks if block.downstream else []:
                    yield Cell(**cell.known() | {"kind": "finetune", "task": task})
        for task in tasks if block.downstream else []:
            yield Cell("finetune", seed, sparsity, variant=target, task=task)


def _strengths(block: EditBlock, localization: str) -> Iterator[tuple[str, float | None]]:
    for strategy in block.strategies:
        if strategy == "linear":
            yield from ((LINEAR[not 0 <= alpha <= 1], alpha) for alpha in block.alpha)
        elif strategy != "mask-switch" or localization == "mask":
            yield strategy, None


def _controls(block: EditBlock) -> Iterator[tuple[str, int | None]]:
    for control in block.controls:
        yield from [(control, None)] if control == "none" else [(control, draw) for draw in range(block.draws)]


def _check(settings: StudySettings) -> None:
    for name in ("seeds", "variants"):
        if not (values := getattr(settings, name)) or len(set(values)) < len(values):
            raise LceError(f"{name}: expected at least one value, each once, got {values}")
    if settings.edits and settings.sparsity not in settings.sparsities:
        raise LceError(f"sparsity: {settings.sparsity} is not among the study's sparsities {settings.sparsities}")
    for name in ("cells_per_task", "cpus_per_task"):
        if not (value := getattr(settings, name)) > 0:
            raise LceError(f"{name}: expected a positive number, got {value}")
    for i, block in enumerate(settings.edits):
        where = f"edits[{i}]"
        for pair in block.pairs:
            if len(pair) != 2 or len(set(pair)) != 2 or not set(pair) <= set(settings.variants):
                raise LceError(f"{where}.pairs: expected two of the variants {settings.variants}, got {pair}")
        if not set(block.sparsities) <= set(settings.sparsities):
            raise LceError(
                f"{where}.sparsities: {block.sparsities} are not all among the study's {settings.sparsities}"
            )
        if "linear" in block.strategies and 0 in block.alpha:
            raise LceError(f"{where}.alpha: 0 changes nothing; the unedited models are measured anyway")
        if block.draws < 1:
            raise LceError(f"{where}.draws: expected a positive number, got {block.draws}")


def settings_for(study: StudySettings, cell: Cell) -> Settings:
    """The settings of one experiment with which ``cell`` can be made alone."""
    shared = {f.name: getattr(study, f.name) for f in fields(Settings) if hasattr(study, f.name)}
    own = {"seed": cell.seed, "sparsity": cell.sparsity, "variant": cell.variant}
    return Settings(**shared | {name: value for name, value in own.items() if value is not None})


def context_of(study: StudySettings, trainer_options: dict[str, Any]) -> dict[str, Any]:
    """What the results of a study depend on: all of them, and those that are evaluations."""
    evaluation = asdict(study.evaluation)
    files = [*study.evaluation.weat, *filter(None, [study.evaluation.text])]
    return {
        "shared": {
            "base": study.base,
            "data": prepare.identity_of(study.data),
            "train": training.identity_of(study.train),
            "trainer": training.numerics(trainer_options),
        },
        "evaluation": evaluation | {name: digest for name in files if (digest := _digest(Path(name)))},
    }


def _digest(path: Path) -> str | None:
    """SHA-256 of a file, or of the tables in a folder; None if there is neither."""
    files = sorted(path.glob("*.tsv")) if path.is_dir() else [path] if path.is_file() else []
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None


def cell_name(study: StudySettings, context: dict[str, Any], cell: Cell) -> str:
    """A readable name that differs wherever the result may differ; ``context`` is that of `context_of`."""
    about = context["shared"] | {"sparsities": [s for s in study.sparsities if s <= (cell.sparsity or 0)]}
    if cell.kind in ("measure", "edit"):
        about["evaluation"] = context["evaluation"]
    if cell.kind in ("compare", "overlap"):
        about["k"] = study.k
    if cell.kind == "overlap":
        about |= {"seeds": study.seeds, "variants": study.variants}
    if cell.kind == "finetune":
        about["downstream"] = asdict(study.downstream) | {"tasks": _digest(Path(str(cell.task))), "seeds": None}
    known = cell.known()
    parts = [Path(value).name if isinstance(value, str) else f"{name}{value:g}" for name, value in known.items()]
    return f"{'-'.join(parts)}-{derive(str(about), str(known)) % 16**8:08x}"
