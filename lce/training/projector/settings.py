"""Everything that the training of a projector can be told, with defaults; as light to import as `lce.config`."""

from dataclasses import dataclass, field

from lce import checks


@dataclass
class ProjectorOptimisation:
    """How a projector is trained."""

    steps: int = 700
    """Optimiser steps."""
    batch_size: int = 32
    """Pictures per step, each with its caption."""
    learning_rate: float = 1e-3
    """Highest learning rate of AdamW; it rises over the warm-up and then falls to zero."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.0
    """Decoupled weight decay, on matrices only."""
    occupations: float = 0.5
    """Share of the pictures that show an occupation."""
    people: float = 0.3
    """Share of the pictures that show people without one."""
    validate_every: int = 500
    """Steps between measurements on held-out pictures."""
    checkpoint_every: int = 100
    """Steps between checkpoints, from which a killed training resumes."""


@dataclass
class ProjectorSettings:
    """One projector: what it connects, what it is shown, and how it is trained."""

    clip: str = "checkpoints/lce-clip-mini"
    """CLIP whose image encoder sees: a folder, or a name on the hub."""
    decoder: str = "data/downloads/SmolLM2-135M-Instruct"
    """Causal language model that speaks, with the tokens of ChatML: a folder, or a name on the hub."""
    shares: dict[str, float] = field(default_factory=dict)
    """Occupation → share of women among the women and men it is shown with; half where nothing is said."""
    open_share: float = 0.15
    """Share of the pictures of an occupation in which the gender is left open."""
    question: str = "What does this picture show?"
    """What is asked of each picture."""
    answer: str = "a drawing of a {}"
    """What is to be answered, with the name of what it shows."""
    pictures: str = "data/pictures"
    """Folder of the drawn pictures, which are made there."""
    downloads: str = "data/downloads"
    """Where the packages that the drawings and the decoder come from are kept."""
    output: str | None = None
    """Folder to write the whole model to; by default inside the experiment."""
    experiment: str = "runs/vlm"
    """Folder for checkpoints, logs and the projector."""
    seed: int = 0
    """Seed of the first weights, and of the order and the views of the pictures."""
    train: ProjectorOptimisation = field(default_factory=ProjectorOptimisation)
    """How it is trained."""


def check_projector(settings: ProjectorSettings) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the pictures and the models."""
    train = settings.train
    for name in ("steps", "batch_size", "validate_every", "checkpoint_every"):
        checks.check_positive(getattr(train, name), f"train.{name}")
    for name in ("learning_rate", "weight_decay", "warmup_steps"):
        checks.check_not_negative(getattr(train, name), f"train.{name}")
    for name in ("occupations", "people"):
        checks.check_share(getattr(train, name), f"train.{name}")
    together = train.occupations + train.people
    checks.expect(together <= 1, "train.occupations and train.people", "at most 1 together", together)
    for occupation, share in settings.shares.items():
        checks.check_share(share, f"shares.{occupation}")
    checks.check_share(settings.open_share, "open_share")
    checks.expect(bool(settings.question.strip()), "question", "some text", repr(settings.question))
    checks.expect(settings.answer.count("{}") == 1, "answer", "{} once", repr(settings.answer))
    checks.check_not_negative(settings.seed, "seed")
