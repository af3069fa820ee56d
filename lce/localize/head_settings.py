"""Everything that the audit of attention heads can be told, with defaults; as light to import as `lce.config`."""

from dataclasses import dataclass, field
from typing import Literal

from lce import checks

HeadEditName = Literal["mean", "zero", "projection"]
DRAWN = "data/pictures"
"""The folder that the drawn pictures are made in."""


@dataclass
class AuditSettings:
    """Pictures of people, how attention heads are described and edited, and how that is measured."""

    pictures: str = DRAWN
    """Folder of pictures; drawn ones are made in the default one."""
    table: str | None = None
    """CSV file with the columns file, class, and the attribute's; or FACET's annotations; by default table.csv in the
    folder of pictures."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """Column of the table → values; other rows are left out."""
    classes: list[str] | None = None
    """Classes to tell apart; by default all in the table."""
    templates: list[str] = field(
        default_factory=lambda: ["a {}", "a photo of a {}", "a picture of a {}", "a drawing of a {}"]
    )
    """Prompts about classes and groups."""
    views: int = 1
    """Views of each picture: the picture itself, and others that are cut closer and partly hidden."""
    texts: int = 20
    """Texts that describe a head."""
    rank: int | None = None
    """Only heads are selected that have a prompt about a group among their first so many texts; by default, all of
    them count."""
    dictionary: str | None = None
    """Text file with descriptions to choose from, one a line; by default the names of classes and pictures."""
    edits: list[HeadEditName] = field(default_factory=lambda: ["mean", "zero", "projection"])
    """mean: the heads' output is replaced by its mean over the pictures; zero: by nothing; projection: it loses the
    concept's direction alone. The first is the one that `lce edit heads` keeps as the patch."""
    random_sets: int = 200
    """Random sets of as many heads of the same layers that the selected ones are compared with."""
    batch_size: int = 64
    """Pictures that are looked at together."""
    device: str = "auto"
    """Where the model computes: cpu, cuda, …; auto takes the GPU if there is one."""


@dataclass
class HeadSettings(AuditSettings):
    """Attention heads of a CLIP: which are selected, what is done to them, and how that is measured."""

    model: str = "checkpoints/lce-clip-mini"
    """CLIP: a folder, by default the bundled one, or a name on the hub, such as openai/clip-vit-large-patch14."""
    attribute: str = "gender"
    """gender, skin-tone or age, or a YAML file that names two groups, their values in the table, and words for them."""
    matched: str | None = None
    """Column that pictures share which are alike but for the group; by default, none are."""
    leaning: list[str] | None = None
    """Classes that are expected to lean towards the first group; by default those that do so for the other half of the
    people."""
    compared: dict[str, str | None] = field(default_factory=dict)
    """Other attributes whose bias is measured beside this one's → column of matched pictures, or null."""
    size: int = 4
    """How many heads are selected."""
    retrieved: int = 10
    """Pictures that are retrieved for each class (MaxSkew@k)."""
    singles: bool = True
    """Ablate every head by itself, too; of a large model on many pictures, this takes longest."""
    measure: bool = True
    """Measure what the edits change; false writes the patch alone."""
    downloads: str = "data/downloads"
    """Where the packages that the drawn pictures come from are kept."""
    experiment: str = "runs/heads"
    """Folder for all that is made."""
    output: str | None = None
    """Folder for the result, or, of a localisation, selection file; by default a name made from the settings."""
    patch: str | None = None
    """Patch file to write the first edit to; by default inside the output folder."""
    trust_remote_code: bool = False
    """Run code that a model's folder brings along; only for models you trust."""
    seed: int = 0
    """Seed of the views, of the halves of the people, and of the random sets."""


def check_heads(settings: HeadSettings) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the model and the pictures."""
    for name in ("views", "size", "rank", "texts", "batch_size", "retrieved"):
        checks.check_positive(getattr(settings, name), name)
    for name in ("random_sets", "seed"):
        checks.check_not_negative(getattr(settings, name), name)
    rank = f"at most texts ({settings.texts})"
    checks.expect(settings.rank is None or settings.rank <= settings.texts, "rank", rank, settings.rank)
    checks.expect(bool(settings.templates), "templates", "at least one", settings.templates)
    for template in settings.templates:
        checks.expect(template.count("{}") == 1, "templates", "{} once in each", repr(template))
    edits = settings.edits
    checks.expect(bool(edits) and len(set(edits)) == len(edits), "edits", "each once, at least one", edits)
    classes, leaning = settings.classes, settings.leaning
    are_classes = classes is None or len(set(classes)) == len(classes) >= 2
    checks.expect(are_classes, "classes", "at least two different ones", classes)
    checks.expect(leaning is None or bool(leaning), "leaning", "at least one class, or null", leaning)
