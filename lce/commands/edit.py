"""`lce edit`, the main job: localise, edit, measure, write the patch."""

from jsonargparse import Namespace

from lce.commands.common import COMPARISON, settings_of
from lce.edit.strategies import checked_strengths

ARGUMENTS = COMPARISON


def edit(values: Namespace) -> None:
    """Edit the target where it differs from the reference, measure what changed, and write the patch.

    TARGET and REFERENCE are variants that `lce train` made (stereotypical, anti-stereotypical, neutral), folders, or
    names on the hub; without them, those of the configuration. The edit is made on files, whatever the architecture and
    size; it is measured where both are masked, or both causal, language models that can be loaded. With --contrast,
    TARGET alone is named.

    `lce edit features`, `heads` and `directions` edit other units than weights.
    """
    settings, trainer_options = settings_of(values)
    checked_strengths(settings.strategy, settings.alpha)

    from lce.commands.edit_run import run_edit
    from lce.commands.tables import print_edits
    from lce.foundations.files import read_json
    from lce.training.trainer_options import check_machine, on_one_device

    if settings.measure:
        check_machine(on_one_device(trainer_options))
    path = run_edit(settings, trainer_options)
    print_edits(read_json(path))
    print(path)
