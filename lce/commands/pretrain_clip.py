"""`lce pretrain-clip`: a small CLIP."""

from jsonargparse import ArgumentParser, Namespace

from lce.checks import check_one_device, check_trainer
from lce.commands.arguments import Arguments
from lce.commands.common import add_trainer, read
from lce.training.clip.settings import ClipSettings, check_clip


def _add(parser: ArgumentParser) -> None:
    parser.add_class_arguments(ClipSettings)
    add_trainer(parser)


ARGUMENTS = Arguments(_add)


def pretrain_clip(values: Namespace) -> None:
    """Make a small CLIP from drawn pictures and their names, with a bias of known size and origin.

    Occupations are shown with women and men in the shares that the configuration says. A killed training resumes where
    it was.
    """
    settings, trainer_options = read(ClipSettings, values), values["trainer"].as_dict()
    check_clip(settings)
    check_trainer(trainer_options, settings.train.batch_size)
    check_one_device(trainer_options, "a CLIP")

    from lce.training.clip.train import pretrain_clip as run
    from lce.training.trainer_options import check_machine

    check_machine(trainer_options)
    print(run(settings, trainer_options))
