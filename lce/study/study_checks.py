"""What a study cannot be told: the checks of its settings, whatever the model and the text."""

from math import inf

from lce import checks
from lce.edit.strategies import STRATEGIES, checked_strengths
from lce.foundations.errors import LceError
from lce.study.direction_study import check_direction_study
from lce.study.feature_study import check_feature_study
from lce.study.head_study import check_head_study
from lce.study.settings import DownstreamSettings, StudySettings


def check_study(settings: StudySettings) -> None:
    """Raises LceError for the first setting that cannot be right, whatever the model and the text."""
    checks.check_data(settings.data)
    checks.check_training(settings.train)
    checks.check_evaluation(settings.evaluation)
    check_downstream(settings.downstream)
    checks.check_rising(settings.sparsities)
    checks.check_size(settings.share, settings.count)
    checks.check_not_negative(settings.gpus_per_task, "gpus_per_task")
    for seed in settings.seeds:
        checks.check_not_negative(seed, "seeds")
    is_trained = not settings.units
    for name, is_needed in (("seeds", True), ("variants", is_trained)):
        values = getattr(settings, name)
        if (is_needed and not values) or len(set(values)) < len(values):
            raise LceError(f"{name}: expected at least one value, each once, got {values}")
    if settings.untrained and not set(settings.untrained) < set(settings.variants):
        raise LceError(f"untrained: expected some, not all, of {settings.variants}, got {settings.untrained}")
    check_feature_study(settings.features, settings.evaluation)
    check_head_study(settings.heads)
    check_direction_study(settings.directions)
    _check_base(settings)
    if settings.edits and not settings.variants:
        raise LceError(f"edits: expected [] in a study without variants, got {len(settings.edits)} of them")
    if settings.edits and settings.sparsity not in settings.sparsities:
        raise LceError(f"sparsity: {settings.sparsity} is not among the study's sparsities {settings.sparsities}")
    _check_shown_size(settings)
    _check_tasks(settings)
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
        for name in block.strategies:
            if STRATEGIES[name].is_linear and 0 in block.alpha:
                raise LceError(f"{where}.alpha: 0 changes nothing; the unedited models are measured anyway")
            try:
                checked_strengths(name, block.alpha)
            except LceError as error:
                raise LceError(f"{where}.{error}") from error
        if "value" in block.localizations and not (block.share or block.count):
            raise LceError(f"{where}: gives no size of the value-based selections, as share or count")
        for share in block.share:
            checks.check_size(share, where=f"{where}.")
        for count in block.count:
            checks.check_positive(None if isinstance(count, str) else count, f"{where}.count")
        for layers in block.last_layers:
            checks.check_positive(layers, f"{where}.last_layers")
        checks.check_positive(block.draws, f"{where}.draws")


def _check_shown_size(settings: StudySettings) -> None:
    """Raises LceError if the report is to show a size of the value-based selections that no edit has."""
    sizes = [k for block in settings.edits if "value" in block.localizations for k in (*block.share, *block.count)]
    if sizes and settings.k not in sizes:
        name = "share" if settings.count is None else "count"
        raise LceError(f"{name}: {settings.k} is shown in the report, but no value-based edit has it, only {sizes}")


def _check_tasks(settings: StudySettings) -> None:
    """Raises LceError if downstream tasks are given that no model is fine-tuned on."""
    about = settings.downstream
    if about.tasks and not any(block.downstream for block in settings.edits):
        raise LceError(f"downstream.tasks: {about.tasks} are given, but no block of edits has downstream: true")
    if about.tasks and not set(about.seeds or settings.seeds) <= set(settings.seeds):
        raise LceError(f"downstream.seeds: expected some of the study's seeds {settings.seeds}, got {about.seeds}")


def _check_base(settings: StudySettings) -> None:
    """Raises LceError if more is asked of the base than a model that reads pictures can give."""
    features = settings.features
    of_base = [unit for unit, block in settings.units.items() if unit != "features" and not block.model]
    if not of_base:
        return
    rules = {} if features.model else {"features.rules": features.rules, "features.directions": features.directions}
    for name, asked in {"variants": settings.variants, "edits": settings.edits, **rules}.items():
        wanted = f"[] in a study of {of_base[0]} whose base reads pictures; or name {of_base[0]}.model"
        checks.expect(not asked, name, wanted, asked)
    if len(of_base) > 1:
        raise LceError("heads.model, directions.model: name one of them; the base cannot be both models")


def check_downstream(settings: DownstreamSettings) -> None:
    checks.expect(0 < settings.epochs < inf, "downstream.epochs", "a positive number", settings.epochs)
    checks.check_positive(settings.batch_size, "downstream.batch_size")
    checks.check_not_negative(settings.learning_rate, "downstream.learning_rate")
    checks.check_length(settings.max_length, "downstream.max_length")
