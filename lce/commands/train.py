"""`lce train`: the subnetworks of one variant."""

from jsonargparse import Namespace

from lce.checks import check_trainer
from lce.commands.common import EXPERIMENT, settings_of

ARGUMENTS = EXPERIMENT


def train(values: Namespace) -> None:
    """Fine-tune one variant and prune it step by step; a killed run resumes where it was."""
    settings, trainer_options = settings_of(values)
    check_trainer(trainer_options, settings.train.batch_size)

    from lce.data.prepare import prepare_examples
    from lce.models.converted import provide
    from lce.training.pruning import imp
    from lce.training.trainer_options import check_machine

    check_machine(trainer_options)
    provide(settings.base, settings.data.downloads)
    prepare_examples(settings.data)
    print(imp.iterative_magnitude_pruning(settings, trainer_options))
