"""Everything that the editing of features can be told, with defaults; as light to import as `lce.config`."""

from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from lce import checks
from lce.config import DataSettings, EvaluationSettings, TextPositions

RuleName = Literal["counts", "difference", "attribution"]
DirectionName = Literal["occupations", "pronouns"]
Tokens = Literal["all", "last"]


@dataclass
class FeatureRule:
    """Which features are selected."""

    rule: RuleName = "counts"
    """counts: active for one side's occupations and not for the other's; difference: the largest differences of mean
    activations between the two sides; attribution: the largest contributions to the gap in log P(he) − log P(she)."""
    count: int | None = None
    """How many features are selected (difference, attribution); by default as many as the rule counts selects."""
    activation: float = 0.2
    """Activation beyond which a feature counts as active for an occupation (counts)."""
    difference: float = 0.05
    """Least difference of the two sides' mean activations (counts)."""
    own: float = 0.4
    """Least share of its own side's occupations for which a feature is active (counts)."""
    other: float = 0.15
    """Largest share of the other side's (counts)."""


@dataclass
class FeatureSettings(FeatureRule):
    """Features of an autoencoder: which are selected, what is done to them, and how that is measured."""

    model: str = "data/downloads/SmolLM2-135M-Instruct"
    """Model: a folder, or a name on the Hugging Face hub."""
    sae: str = "checkpoints/smollm2-sae"
    """Its autoencoder in SAELens's format: a folder, or OWNER/REPOSITORY/FOLDER on the hub."""
    site: str | None = None
    """Where the autoencoder's states come from, if not where it says: layers.N, a module's path, or a hook of
    TransformerLens."""
    normalisation: Literal["none", "constant_norm_rescale", "layer_norm"] | None = None
    """How states are normalised before encoding, if not as the autoencoder's files say."""
    contexts: list[str] | None = None
    """Texts in which the model reads about the occupations, with {job} in them; '{job}' alone is the published
    experiment's. By default the sentences that occupation pronouns are measured on, up to the pronoun."""
    tokens: Tokens = "all"
    """Tokens of a context whose activations count: all but the first, on average, or the last one."""
    scale: list[float] = field(default_factory=lambda: [0.3])
    """What the selected features are multiplied by, any real numbers: 0 takes them out, 1 changes nothing."""
    positions: TextPositions = "all"
    """Where in a text features are scaled: everywhere, or in a prompt alone, not in what is generated from it with a
    cache. The first token is always left alone."""
    compare: list[RuleName] | None = None
    """Other rules, which the edit is compared with; by default attribution, or counts if the rule is attribution."""
    directions: list[DirectionName] = field(default_factory=lambda: ["occupations", "pronouns"])
    """Directions, likewise: from the mean state of women's occupations to that of men's; from she to he."""
    direction_sites: list[str] | None = None
    """Where directions are taken out; by default where the autoencoder's states come from."""
    alpha: list[float] = field(default_factory=lambda: [1.0])
    """Strengths α with which the directions are taken out."""
    random_baselines: int = 3
    """Random features that the edit is compared with: so many draws, and so many matched in mean activation."""
    most_perplexity: float = 5.0
    """Of the edits of features that raise the perplexity by less, the one that leaves the smallest gap is kept as the
    patch [%]; the others lie beside it."""
    snippets: int = 1000
    """Sentences of the held-out text among which each selected feature's ten most activating ones are looked for."""
    measure: bool = True
    """Measure what the edits change; false writes the patches alone."""
    experiment: str = "runs/features"
    """Folder for all that is made."""
    output: str | None = None
    """Folder for the result, or, of a localisation, selection file; by default a name made from the settings."""
    patch: str | None = None
    """Patch file to write the best edit to, without measuring the first one; by default inside the output folder."""
    trust_remote_code: bool = False
    """Run code that a model's folder brings along; only for models you trust."""
    seed: int = 0
    """Seed of the halves of the occupations, and of random features and directions."""
    data: DataSettings = field(default_factory=DataSettings)
    """Text for perplexity and snippets."""
    evaluation: EvaluationSettings = field(
        default_factory=lambda: EvaluationSettings(
            metrics=[
                "stereoset",
                "crows_pairs",
                "occupation_pronouns",
                "forced_choice",
                "perplexity",
                "plain_perplexity",
            ]
        )
    )
    """How bias is measured."""

    @property
    def compared(self) -> list[RuleName]:
        """The other rules that the edit is compared with."""
        if self.compare is not None:
            return self.compare
        return ["counts" if self.rule == "attribution" else "attribution"]


def check_features(settings: FeatureSettings, is_edit: bool = True) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the model.

    Args:
        is_edit: whether the features are edited; a selection does not depend on what would be done to them.
    """
    checks.check_data(settings.data)
    checks.check_evaluation(settings.evaluation)
    checks.check_positive(settings.count, "count", "a positive number of features")
    for name in ("activation", "difference", "most_perplexity", "random_baselines", "seed", "snippets"):
        checks.check_not_negative(getattr(settings, name), name)
    for name in ("own", "other"):
        checks.expect(0 <= getattr(settings, name) <= 1, name, "a share from 0 to 1", getattr(settings, name))
    if not is_edit:
        return
    for name, void in (("scale", 1), ("alpha", 0)):
        values = getattr(settings, name)
        checks.expect(all(map(isfinite, values)), name, "finite numbers", values)
        checks.expect(void not in values, name, f"other numbers than {void}, which changes nothing", values)
        checks.expect(len(set(values)) == len(values), name, "each number once", values)
    checks.expect(bool(settings.scale), "scale", "at least one number", settings.scale)
    others = f"other rules than the edit's own, {settings.rule}"
    checks.expect(settings.rule not in settings.compared, "compare", others, settings.compare)
