"""`lce data`: the text that models are trained and measured on."""

from pathlib import Path

from jsonargparse import Namespace

from lce.commands.common import EXPERIMENT, settings_of

ARGUMENTS = EXPERIMENT


def data(values: Namespace) -> None:
    """Fetch text and benchmarks, augment, and write the examples that models train on; fetch the base model too.

    Only the base model of configs/smollm2.yaml is fetched here; others are folders, or come from the hub when used.
    """
    settings = settings_of(values)[0]

    from lce.commands.tables import print_report
    from lce.data.prepare import prepare_examples
    from lce.models.converted import provide

    provide(settings.base, settings.data.downloads)
    print_report(prepare_examples(settings.data), Path(settings.data.folder))
    print(f"base model: {settings.base}")
