"""Which options matter to which command; one that does not is refused where it is given on the command line.

A configuration may hold them all, since one file serves several commands.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from jsonargparse import Namespace

from lce.edit.strategies import STRATEGIES
from lce.foundations.errors import LceError

RUN = {"experiment", "seed", "trust_remote_code", "data", "output"}
MODELS = {
    "target", "reference", "contrast", "sparsities", "sparsity", "localization", "share", "count", "tensors",
    "skip_unmatched",
}  # fmt: skip
MEASURED = {"evaluation", "train.max_length", "train.mask_probability", "trainer.accelerator", "trainer.precision"}
APPLICABLE = {
    "data": {"data"},
    "train": RUN | {"base", "variant", "sparsities", "sparsity", "train", "trainer"},
    "localize": RUN | MODELS,
    "edit": RUN | MODELS | MEASURED | {
        "selection", "strategy", "alpha", "old_values", "full_step", "random_baselines", "measure", "patch", "edited",
    },
    "localize features": {
        "model", "sae", "site", "normalisation", "rule", "count", "activation", "difference", "own", "other",
        "contexts", "tokens", "snippets", "experiment", "output", "trust_remote_code", "data",
    },
    "localize heads": {
        "model", "pictures", "table", "attribute", "where", "classes", "templates", "views", "size", "rank", "texts",
        "dictionary", "batch_size", "device", "downloads", "experiment", "output", "trust_remote_code", "seed",
    },
    "localize directions": {
        "model", "projector", "pictures", "table", "attribute", "where", "chosen_by", "matched", "sentences",
        "question", "source", "k", "top", "layers", "positions", "batch_size", "device", "downloads", "experiment",
        "output", "trust_remote_code",
    },
    "evaluate": RUN | MEASURED | {"model", "against", "limit"},
}  # fmt: skip
"""Per command, the settings that matter to it, or the groups of them; where a command is not named, all do."""


@dataclass(frozen=True)
class Condition:
    """``options``, or all of a group, matter only if ``holds``; otherwise they do not apply ``where``."""

    options: tuple[str, ...]
    holds: Callable[[Namespace], bool]
    where: str


HUB = ("hub_name", "hub_config", "hub_revision", "streaming")
CONDITIONS = (
    Condition(
        tuple(f"data.corpus.{name}" for name in HUB), lambda v: v["data.corpus.source"] == "hub",
        "without --data.corpus.source hub",
    ),
    Condition(
        ("data.corpus.files",), lambda v: v["data.corpus.source"] == "files", "without --data.corpus.source files"
    ),
    Condition(
        ("data.corpus.text_column",), lambda v: v["data.corpus.source"] != "fairness",
        "without --data.corpus.source hub or files",
    ),
    Condition(
        ("evaluation.weat",), lambda v: "weat" in v["evaluation.metrics"], "where evaluation.metrics leave out weat"
    ),
    Condition(
        ("evaluation.stereoset_split", "evaluation.stereoset_word_score"),
        lambda v: "stereoset" in v["evaluation.metrics"], "where evaluation.metrics leave out stereoset",
    ),
    Condition(
        ("evaluation.bias_type",),
        lambda v: any(name.startswith(("stereoset", "crows_pairs")) for name in v["evaluation.metrics"]),
        "where evaluation.metrics leave out stereoset and crows_pairs",
    ),
    Condition(
        ("evaluation.text",), lambda v: any(name.endswith("perplexity") for name in v["evaluation.metrics"]),
        "where evaluation.metrics leave out perplexity",
    ),
    Condition(
        ("trainer.gradient_clip_algorithm",), lambda v: v["trainer.gradient_clip_val"] is not None,
        "without --trainer.gradient_clip_val",
    ),
)  # fmt: skip
SIZED = Condition(
    ("share", "count"), lambda v: v.localization != "mask",
    "to the mask-based localization; it sizes value-based selections",
)  # fmt: skip
COMPARED = Condition(
    ("reference",), lambda v: not v.contrast, "together with --contrast, whose models are compared"
)  # fmt: skip
LINEAR = Condition(
    ("alpha", "full_step"), lambda v: STRATEGIES[v.strategy].is_linear, "to pruning and mask-switch, which take no α"
)
CONDITIONS_OF = {
    "localize": (COMPARED, SIZED),
    "edit": (
        COMPARED,
        Condition(
            ("contrast",), lambda v: STRATEGIES[v.strategy].is_linear, "to pruning and mask-switch, which add nothing"
        ),
        Condition(
            ("localization", "share", "count", "tensors"), lambda v: not v.selection,
            "together with --selection, which names the weights already",
        ),
        SIZED,
        LINEAR,
        Condition(("random_baselines", "evaluation", "train", "trainer"), lambda v: v.measure, "without measuring"),
    ),
    "edit features": (
        Condition(
            ("random_baselines", "evaluation", "most_perplexity", "trainer"), lambda v: v.measure, "without measuring"
        ),
        Condition(("alpha", "direction_sites"), lambda v: v.directions, "without directions"),
    ),
    "edit heads": (
        Condition(
            ("matched", "leaning", "compared", "singles", "random_sets", "retrieved"), lambda v: v.measure,
            "without measuring",
        ),
    ),
    "edit directions": (
        Condition(
            ("without_people", "shuffles", "random_directions", "caption", "choice", "colours"),
            lambda v: v["measure"], "without measuring",
        ),
    ),
    "evaluate": (
        Condition(("evaluation.limit",), lambda v: v.limit is None, "together with --limit, which means the same"),
    ),
}  # fmt: skip


def applies(command: str, option: str) -> bool:
    """Whether ``option`` can matter to ``command``: it, a group that it is in, or a part of it."""
    known = APPLICABLE.get(command)
    return known is None or any(f"{option}.".startswith(f"{k}.") or k.startswith(f"{option}.") for k in known)


def check_applicable(command: str, given: Collection[str], values: Namespace) -> None:
    """Raises LceError if an option that was ``given`` on the command line does not matter to ``command``."""
    for option in given:
        if not applies(command, option):
            raise LceError(f"--{option} does not apply to lce {command}")
    if {"share", "count"} <= set(given):
        raise LceError("--share, --count: give one of them; both say how many weights are selected")
    for condition in (*CONDITIONS_OF.get(command, ()), *CONDITIONS):
        for option in condition.options:
            for one in given:
                if f"{one}.".startswith(f"{option}.") and not condition.holds(values):
                    raise LceError(f"--{one} does not apply {condition.where}")


def check_sparsity(values: Namespace, given: Collection[str], origins: Mapping[str, str]) -> None:
    """Raises LceError if ``sparsities`` were asked for, and `sparsity`, which nobody asked for, would change them."""

    def rank(name: str) -> int:
        return 2 if name in given else 1 if name in origins else 0

    chosen, sparsity = values.sparsities, values.sparsity
    if sparsity and sparsity not in chosen and rank("sparsities") > rank("sparsity"):
        source = origins.get("sparsity", "the default")
        wanted = f"; give --sparsity too, say --sparsity {chosen[-1]:g}" if chosen else ""
        raise LceError(f"sparsities: the sparsity {sparsity:g}, from {source}, is not among {chosen}{wanted}")
