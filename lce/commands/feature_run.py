"""The runs of `lce localize features` and `lce edit features`: select, edit, measure, and keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lce.checks import check_float32_weights
from lce.commands.common import destination_of_edit, named_after
from lce.config import Settings
from lce.evaluation.evaluator import Evaluator
from lce.evaluation.feature_checks import feature_checks
from lce.evaluation.feature_report import write_feature_report
from lce.evaluation.site_edits import ANSWERS, CHOOSING, HELD_OUT, Measured, SiteEdits, Trial, trials
from lce.foundations.errors import LceError
from lce.foundations.files import save_config, write_json
from lce.foundations.overwriting import check_selection_file
from lce.foundations.paths import CONFIG
from lce.localize.feature_settings import FeatureSettings, check_features
from lce.localize.features import about
from lce.localize.selection import Selection
from lce.localize.snippets import with_snippets
from lce.metrics.forced_choice import ForcedChoice, verdicts
from lce.metrics.items import ItemMetric, differences
from lce.metrics.occupation_pronouns import PRONOUNS, single_tokens
from lce.metrics.suite import all_scores
from lce.models.autoencoder_files import load_autoencoder
from lce.models.converted import provide
from lce.models.kinds import kind_of
from lce.models.loading import load_language_model
from lce.storage.hub import identity
from lce.training.trainer_options import numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SELECTION = "selection.safetensors"
Loaded = tuple["PreTrainedModel", "PreTrainedTokenizerBase", SiteEdits]


def run_localize_features(settings: FeatureSettings) -> Path:
    """Select features, and write the selection; return its file.

    Raises:
        LceError: the model, the autoencoder or the settings do not fit, or nothing is selected.
    """
    check_features(settings, is_edit=False)
    path = Path(settings.output or f"{settings.experiment}/selections/{_name(settings)}.safetensors")
    check_selection_file(path, {".yaml": "settings file of localize"})
    _, tokenizer, edits = _loaded(settings, settings.rule == "attribution")
    selection = _shown(settings, edits, tokenizer, edits.selection())
    selection.save(path)
    save_config(path.with_suffix(".yaml"), asdict(settings), "localize")
    return path


def run_edit_features(settings: FeatureSettings, trainer_options: Mapping[str, Any]) -> Path:
    """Edit features, measure, and write patches, figures and the page; return the path of the result.

    A result that exists for the same settings and models is not made again.

    Raises:
        LceError: the model, the autoencoder or the settings do not fit, nothing is selected, or something would be
            written over.
    """
    check_features(settings)
    if settings.measure:
        check_float32_weights(trainer_options)
    provide(settings.model, settings.data.downloads)
    to = destination_of_edit(
        settings.experiment, settings.output, _name(settings), settings.patch, _identity(settings, trainer_options)
    )
    if to.is_made:
        return to.result
    folder = to.folder
    asks_pronouns = "attribution" in (settings.rule, *settings.compared) or "pronouns" in settings.directions
    model, tokenizer, edits = _loaded(settings, settings.measure or asks_pronouns)
    asked = list(trials(edits))
    selection = _shown(settings, edits, tokenizer, edits.selection())
    kind = kind_of(settings.model, model.config)
    measured = None
    if settings.measure:
        measured = Measured(Evaluator(_measuring(settings), trainer_options, tokenizer, kind), edits, len(asked) + 1)
    # What is refused is refused above, before anything is written.
    save_config(folder / CONFIG, asdict(settings) | {"trainer": dict(trainer_options)}, "edit")
    selection.save(folder / SELECTION)
    found = _tried(settings, folder, asked, measured)
    result = {
        "model": settings.model,
        "autoencoder": settings.sae,
        "site": edits.units.site.name,
        "selection": str(folder / SELECTION),
        **found,
        "features": about(selection),
        "rerun": {"command": "edit features", "config": str(folder / CONFIG)},
        "identity": to.digest,
    }
    if measured:
        write_feature_report(folder, result)
    write_json(to.result, result)
    return to.result


def _loaded(settings: FeatureSettings, asks_pronouns: bool) -> Loaded:
    """Model, tokenizer, and edits.

    Args:
        asks_pronouns: whether log P(he) − log P(she) is wanted.
    """
    provide(settings.model, settings.data.downloads)
    model, tokenizer = load_language_model(settings.model, settings.trust_remote_code)
    if asks_pronouns and not all(single_tokens(words, tokenizer) for words in PRONOUNS.values()):
        raise LceError(
            f"model {settings.model}: its tokenizer has no token for he, or none for she, which are compared"
        )
    model.requires_grad_(False)
    return model, tokenizer, SiteEdits(settings, model, tokenizer, kind_of(settings.model, model.config))


def _name(settings: FeatureSettings) -> str:
    return named_after(Path(settings.model).name, Path(settings.sae).name, settings.rule)


def _identity(settings: FeatureSettings, trainer_options: Mapping[str, Any]) -> dict[str, Any]:
    """What the result depends on."""
    free = {"experiment", "output", "trust_remote_code", "model", "sae"}
    known = {key: value for key, value in asdict(settings).items() if key not in free}
    models = [identity(settings.model).fingerprint, load_autoencoder(settings.sae, settings.normalisation).fingerprint]
    return known | {"models": models, "trainer": numerics(trainer_options)}


def _measuring(settings: FeatureSettings) -> Settings:
    """The settings as what measures takes them."""
    return Settings(
        experiment=settings.experiment, data=settings.data, evaluation=settings.evaluation, seed=settings.seed
    )


def _shown(
    settings: FeatureSettings, edits: SiteEdits, tokenizer: PreTrainedTokenizerBase, selection: Selection
) -> Selection:
    """The selection with snippets of held-out text, if any are wanted."""
    if not settings.snippets:
        return selection
    from lce.data.module import read_examples
    from lce.data.prepare import prepare_examples
    from lce.foundations.paths import EXAMPLES

    prepare_examples(settings.data)
    texts, _ = read_examples(Path(settings.data.folder) / EXAMPLES, None, True)
    step = max(1, len(texts) // settings.snippets)
    return with_snippets(selection, edits.units, edits.model, tokenizer, texts[::step][: settings.snippets])


def _tried(settings: FeatureSettings, folder: Path, asked: list[Trial], measured: Measured | None) -> dict[str, Any]:
    """What the result says of all edits, whose patches are written on the way."""
    if measured is None:
        patches = [_write_patch(settings, folder, trial, {}) for trial in asked if not trial.is_control]
        return {"edits": [], "patch": _wanted_patch(settings, asked[0], {}) or patches[0], "patches": patches}
    before, rows, jobs = all_scores(measured.before.values()), [], []
    controls: dict[tuple[str, float], ItemMetric] = {}
    later = [name for name in measured.names if name not in (CHOOSING, HELD_OUT, *measured.evaluator.texts)]
    with measured.bar:
        for trial in asked:
            row, metrics = measured.row(trial, not trial.is_control or trial.name.endswith(" 1"), later)
            row["perplexity_change"] = _change(before, row["scores"], "perplexity")
            row["patch"] = None if trial.is_control else _write_patch(settings, folder, trial, _moved(before, row))
            rows.append(row)
            if trial.is_control:
                controls[trial.name, trial.strength] = metrics[HELD_OUT]
        kept = _best(rows, settings.most_perplexity)
        trial = asked[rows.index(kept)]
        whole, metrics = measured.row(trial)  # by all metrics
    kept |= whole
    kept["against"] = {
        name: differences(metrics[HELD_OUT], other)[HELD_OUT]
        for (name, strength), other in controls.items()
        if strength == trial.strength
    }
    kept["patch"] = _write_patch(settings, folder, trial, _moved(before, kept))
    kept["patch"] = _wanted_patch(settings, trial, _moved(before, kept)) or kept["patch"]
    first, second = measured.before.get(ANSWERS), metrics.get(ANSWERS)
    if isinstance(first, ForcedChoice) and isinstance(second, ForcedChoice):
        jobs = verdicts(first, second)
    return {
        "checks": feature_checks(before, rows, jobs, settings.most_perplexity),
        "patch": kept["patch"],
        "best": {"name": kept["name"], "strength": kept["strength"]},
        "before": before,
        "edits": rows,
        "occupations": jobs,
        "measured_with": measured.evaluator.provenance(),
    }


def _best(rows: list[dict[str, Any]], most_perplexity: float) -> dict[str, Any]:
    """Of the edits of features that raise the perplexity by less than so much [%], the one with the smallest gap left.

    Where none does, the one that raises it least. The gap is that of the sentences which edits are chosen by.
    """
    edits = [row for row in rows if row["patch"] and not row["name"].startswith("direction")]
    changes = {id(row): row["perplexity_change"] or 0.0 for row in edits}
    cheap = [row for row in edits if changes[id(row)] < most_perplexity]
    if not cheap:
        return min(edits, key=lambda row: changes[id(row)])
    return min(cheap, key=lambda row: abs(row["scores"]["occupation_pronouns"]["value"]))


def _change(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> float | None:
    """The change of a score [%]; None where it was not measured."""
    if name not in before or name not in after:
        return None
    return 100 * (after[name]["value"] / before[name]["value"] - 1)


def _moved(before: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"before": before[name]["value"], "after": score["value"]} for name, score in row["scores"].items()}


def _said(settings: FeatureSettings, scores: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": settings.model, "seed": settings.seed, "scores": dict(scores), "held_out": f"scores of {HELD_OUT} "
            "are of occupations and sentences that the edit was not chosen by"}  # fmt: skip


def _write_patch(settings: FeatureSettings, folder: Path, trial: Trial, scores: Mapping[str, Any]) -> str:
    name = f"{trial.name.replace(' ', '-')}-{trial.strength:g}.patch.safetensors"
    return str(trial.whole.patch(folder / name, _said(settings, scores)).file)


def _wanted_patch(settings: FeatureSettings, trial: Trial, scores: Mapping[str, Any]) -> str | None:
    """The patch where the settings want it; None where they do not say."""
    return str(trial.whole.patch(settings.patch, _said(settings, scores)).file) if settings.patch else None
