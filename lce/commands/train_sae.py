"""`lce train-sae`: a sparse autoencoder of a model's states."""

from jsonargparse import ArgumentParser, Namespace

from lce.checks import check_float32_weights, check_one_device, check_trainer, expect
from lce.commands.arguments import Arguments
from lce.commands.common import add_trainer, read
from lce.training.autoencoder.settings import AutoencoderSettings, check_autoencoder


def _add(parser: ArgumentParser) -> None:
    parser.add_class_arguments(AutoencoderSettings)
    add_trainer(parser)


ARGUMENTS = Arguments(_add, words=("model",))


def train_sae(values: Namespace) -> None:
    """Train a sparse autoencoder of the states at one site of a masked or causal language model, on text.

    It is written in SAELens's format; a killed training resumes where it was.
    """
    settings, trainer_options = read(AutoencoderSettings, values), values["trainer"].as_dict()
    check_autoencoder(settings)
    check_trainer(trainer_options, settings.train.batch_size)
    check_one_device(trainer_options, "an autoencoder")
    check_float32_weights(trainer_options)
    parts = trainer_options.get("accumulate_grad_batches") or 1
    expect(parts == 1, "trainer.accumulate_grad_batches", "1: a step takes train.batch_size states at once", parts)

    from lce.commands.tables import print_autoencoder
    from lce.training.autoencoder.train import train_autoencoder
    from lce.training.trainer_options import check_machine

    check_machine(trainer_options)
    folder = train_autoencoder(settings, trainer_options)
    print_autoencoder(folder)
    print(folder)
