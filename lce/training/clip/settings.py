"""Everything that the training of a CLIP can be told, with defaults; as light to import as `lce.config`."""

from dataclasses import dataclass, field

from lce import checks


@dataclass
class TowerSettings:
    """A transformer: of pictures or of text."""

    layers: int = 8
    width: int = 192
    heads: int = 6


@dataclass
class ClipOptimisation:
    """How a CLIP is trained."""

    steps: int = 4000
    """Optimiser steps."""
    batch_size: int = 256
    """Pictures per step, each with a caption."""
    learning_rate: float = 1e-3
    """Highest learning rate of AdamW; it rises over the warm-up and then falls to zero."""
    warmup_steps: int = 300
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.1
    """Decoupled weight decay, on matrices only."""
    occupations: float = 0.4
    """Share of the pictures that show an occupation."""
    people: float = 0.25
    """Share of the pictures that show people without one."""
    gendered_captions: float = 0.3
    """Share of the captions of women and men with an occupation that name the gender too."""
    toned_captions: float = 0.2
    """Share of the captions of people with a skin tone that name it too."""
    validate_every: int = 500
    """Steps between measurements on held-out pictures."""
    checkpoint_every: int = 250
    """Steps between checkpoints, from which a killed training resumes."""


@dataclass
class ClipSettings:
    """One CLIP: its two towers, what it is shown, and how it is trained."""

    shares: dict[str, float] = field(default_factory=dict)
    """Occupation → share of women among the women and men it is shown with; half where nothing is said."""
    open_share: float = 0.15
    """Share of the pictures of an occupation in which the gender is left open."""
    pictures: str = "data/pictures"
    """Folder of the drawn pictures, which are made there."""
    downloads: str = "data/downloads"
    """Where the packages that the drawings come from are kept."""
    image: TowerSettings = field(default_factory=TowerSettings)
    """The transformer of pictures."""
    text: TowerSettings = field(default_factory=lambda: TowerSettings(layers=3, width=128, heads=4))
    """The transformer of text."""
    size: int = 72
    """Width and height at which it sees a picture [pixels]."""
    patch: int = 12
    """Width and height of a patch [pixels]."""
    embedding: int = 128
    """Width of the space that pictures and texts share."""
    vocabulary: int = 3000
    """Number of word pieces."""
    output: str | None = None
    """Folder to write the model to; by default inside the experiment."""
    experiment: str = "runs/clip"
    """Folder for checkpoints and logs."""
    seed: int = 0
    """Seed of the first weights, and of the order and the views of the pictures."""
    train: ClipOptimisation = field(default_factory=ClipOptimisation)
    """How it is trained."""


def check_clip(settings: ClipSettings) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the pictures."""
    train = settings.train
    for name in ("steps", "batch_size", "validate_every", "checkpoint_every"):
        checks.check_positive(getattr(train, name), f"train.{name}")
    for name in ("learning_rate", "weight_decay", "warmup_steps"):
        checks.check_not_negative(getattr(train, name), f"train.{name}")
    for name in ("occupations", "people", "gendered_captions", "toned_captions"):
        checks.check_share(getattr(train, name), f"train.{name}")
    together = train.occupations + train.people
    checks.expect(together <= 1, "train.occupations and train.people", "at most 1 together", together)
    for occupation, share in settings.shares.items():
        checks.check_share(share, f"shares.{occupation}")
    checks.check_share(settings.open_share, "open_share")
    for name, tower in (("image", settings.image), ("text", settings.text)):
        checks.check_positive(tower.layers, f"{name}.layers")
        checks.check_positive(tower.heads, f"{name}.heads")
        is_divisible = tower.width >= 1 and tower.width % tower.heads == 0
        checks.expect(is_divisible, f"{name}.width", f"a multiple of {name}.heads ({tower.heads})", tower.width)
    for name in ("patch", "embedding", "vocabulary"):
        checks.check_positive(getattr(settings, name), name)
    is_divisible = settings.size >= 1 and settings.size % settings.patch == 0
    checks.expect(is_divisible, "size", f"a multiple of patch ({settings.patch})", settings.size)
    checks.check_not_negative(settings.seed, "seed")
