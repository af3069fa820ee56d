"""`lce pretrain`: the bundled base model."""

from jsonargparse import ArgumentParser, Namespace

from lce.checks import check_pretraining, check_trainer
from lce.commands.arguments import Arguments
from lce.commands.common import add_trainer, read
from lce.config import PretrainSettings


def _add(parser: ArgumentParser) -> None:
    parser.add_class_arguments(PretrainSettings)
    add_trainer(parser)


ARGUMENTS = Arguments(_add)


def pretrain(values: Namespace) -> None:
    """Make a small masked language model, for machines that reach no model hub."""
    settings, trainer_options = read(PretrainSettings, values), values["trainer"].as_dict()
    check_pretraining(settings)
    check_trainer(trainer_options, settings.train.batch_size)

    from lce.training.pretraining import pretrain as run
    from lce.training.trainer_options import check_machine

    check_machine(trainer_options)
    print(run(settings, trainer_options))
