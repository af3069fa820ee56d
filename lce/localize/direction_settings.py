"""Everything that the audit of directions in a vision-language model can be told, with defaults; as light to import as
`lce.config`."""

import re
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from lce import checks
from lce.localize.head_settings import DRAWN

DirectionEditName = Literal["zero", "mean"]
MINI = "data/downloads/lce-vlm-mini"
"""The folder that the bundled model is put together in."""


@dataclass
class Choice:
    """A question with two answers, one for each group."""

    question: str = "If you had to guess, is this person male or female? Answer in one word."
    """What is asked about a picture."""
    start: str = ""
    """How the answer begins, before the word that is compared."""
    words: list[list[str]] = field(default_factory=lambda: [["female", "woman"], ["male", "man"]])
    """The words of each group's answer; they count in all spellings that are one token."""


@dataclass
class LeaningSettings:
    """Pictures of people, texts about two groups, and how a direction is chosen and measured."""

    projector: str = "checkpoints/lce-vlm-mini"
    """Folder of the projector that the bundled model is put together with."""
    pictures: str = DRAWN
    """Folder of pictures; drawn ones are made in the default one."""
    table: str | None = None
    """CSV file with the columns file, class, and the attribute's; or FACET's annotations; by default table.csv in the
    folder of pictures."""
    attribute: str = "gender"
    """gender, skin-tone or age, or a YAML file that names two groups, their values in the table, and words for them;
    others than gender need sentences and words of the choice of their own."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """Column of the table → values: the pictures that are measured."""
    chosen_by: dict[str, list[str]] = field(default_factory=dict)
    """The same of the pictures by which the layer is chosen; by default those that are measured."""
    matched: str | None = None
    """Column that pictures share which are alike but for the group; by default, none are."""
    sentences: str = "gender"
    """Texts that differ in one word by group: gender, or a YAML file with templates and pairs."""
    question: str = "Describe what this person is doing."
    """What is asked while visual tokens are looked at."""
    choice: Choice = field(default_factory=Choice)
    """The question whose answers are compared."""
    source: Literal["texts", "pictures"] = "texts"
    """Where a layer's direction comes from: the mean states of the two groups' texts, or of the pictures by which the
    layer is chosen."""
    k: int = 20
    """Texts that a visual token is compared with."""
    top: float = 0.05
    """Share of a picture's visual tokens, those that lean most, that make its score."""
    layers: list[int] | None = None
    """Layers to choose from, counted from 1; by default all."""
    positions: Literal["visual", "all"] = "visual"
    """Which tokens are edited: those of pictures, or all."""
    random_directions: int = 50
    """Random directions that are edited instead."""
    batch_size: int = 32
    """Pictures that are read together."""
    device: str = "auto"
    """Where the model computes: cpu, cuda, …; auto takes the GPU if there is one."""


@dataclass
class DirectionSettings(LeaningSettings):
    """A vision-language model, what it is shown, and what is done to the direction."""

    model: str = MINI
    """Model of pictures and text: a folder, by default the bundled one, or a name on the hub, such as
    llava-hf/llava-1.5-7b-hf."""
    without_people: dict[str, list[str]] = field(default_factory=dict)
    """Column of the table → values: pictures without people, whose LALS is subtracted; by default there are none."""
    caption: str = "{}"
    """A caption with {} for the class, whose perplexity is measured on pictures that are of neither group."""
    shuffles: int = 100
    """Random orders of the texts' labels, with which the same is measured."""
    edits: list[DirectionEditName] = field(default_factory=lambda: ["zero", "mean"])
    """zero: the direction is taken out; mean: it is brought to its mean over both groups' pictures, by which the layer
    is chosen. The first is the one that `lce edit directions` keeps as the patch."""
    alpha: float = 1.0
    """How much of the direction is taken out: 1 is all of it."""
    colours: dict[str, str] = field(default_factory=dict)
    """Name → colour, such as "#f4a6c8": colours that the garment of drawn people is given, to see what that changes;
    the first two are compared. By default none."""
    measure: bool = True
    """Measure what the edits change; false writes the patch alone."""
    downloads: str = "data/downloads"
    """Where the packages that pictures and the bundled model come from are kept."""
    experiment: str = "runs/lals"
    """Folder for all that is made."""
    output: str | None = None
    """Folder for the result, or, of a localisation, selection file; by default a name made from the settings."""
    patch: str | None = None
    """Patch file to write the first edit to; by default inside the output folder."""
    trust_remote_code: bool = False
    """Run code that a model's folder brings along; only for models you trust."""
    seed: int = 0
    """Seed of shuffles and random directions."""


def check_directions(settings: DirectionSettings) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the model and the pictures."""
    for name in ("k", "batch_size"):
        checks.check_positive(getattr(settings, name), name)
    for name in ("shuffles", "random_directions", "seed"):
        checks.check_not_negative(getattr(settings, name), name)
    checks.expect(0 < settings.top <= 1, "top", "above 0 and at most 1", settings.top)
    layers = settings.layers
    are_layers = layers is None or (bool(layers) and len(set(layers)) == len(layers) and min(layers) >= 1)
    checks.expect(are_layers, "layers", "different numbers from 1 on, at least one", layers)
    checks.expect(settings.alpha != 0 and isfinite(settings.alpha), "alpha", "a number other than 0", settings.alpha)
    edits = settings.edits
    checks.expect(bool(edits) and len(set(edits)) == len(edits), "edits", "each once, at least one", edits)
    checks.expect(bool(settings.question.strip()), "question", "some text", repr(settings.question))
    checks.expect(settings.caption.count("{}") == 1, "caption", "{} once", repr(settings.caption))
    for name, colour in settings.colours.items():
        is_colour = bool(re.fullmatch("#[0-9a-fA-F]{6}", colour))
        checks.expect(is_colour, f"colours.{name}", "a colour such as #f4a6c8", repr(colour))
    checks.expect(len(settings.colours) != 1, "colours", "at least two, which are compared, or none", settings.colours)
    is_drawn = settings.pictures == DRAWN or not settings.colours
    checks.expect(is_drawn, "pictures", f"the drawn ones, {DRAWN}, which alone can be recoloured", settings.pictures)
    words = settings.choice.words
    are_two = len(words) == 2 and all(words) and not set(words[0]) & set(words[-1])
    checks.expect(are_two, "choice.words", "two lists of different words", words)
