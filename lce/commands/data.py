"""`lce data`: the text that models are trained and measured on."""

from pathlib import Path

from jsonargparse import Namespace

from lce.commands.common import EXPERIMENT, settings_of

ARGUMENTS = EXPERIMENT


def data(values: Namespace) -> None:
    """Fetch text and benchmarks, augment, and write the examples that models train on."""
    settings = settings_of(values)[0].data

    from lce.commands.tables import print_report
    from lce.data.prepare import prepare_examples

    print_report(prepare_examples(settings), Path(settings.folder))
