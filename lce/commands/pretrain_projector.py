"""`lce pretrain-projector`: the projector of a small vision-language model."""

from jsonargparse import ArgumentParser, Namespace

from lce.checks import check_one_device, check_trainer
from lce.commands.arguments import Arguments
from lce.commands.common import add_trainer, read
from lce.training.projector.settings import ProjectorSettings, check_projector


def _add(parser: ArgumentParser) -> None:
    parser.add_class_arguments(ProjectorSettings)
    add_trainer(parser)


ARGUMENTS = Arguments(_add)


def pretrain_projector(values: Namespace) -> None:
    """Make a small vision-language model: a CLIP's image encoder and a decoder, joined by a projector.

    The projector alone is trained, to have the decoder name what drawn pictures show. The folder that is printed holds
    the whole model, which plain transformers loads. A killed training resumes where it was.
    """
    settings, trainer_options = read(ProjectorSettings, values), values["trainer"].as_dict()
    check_projector(settings)
    check_trainer(trainer_options, settings.train.batch_size)
    check_one_device(trainer_options, "a projector")

    from lce.training.projector.train import pretrain_projector as run
    from lce.training.trainer_options import check_machine

    check_machine(trainer_options)
    print(run(settings, trainer_options))
