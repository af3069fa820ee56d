"""`lce sweep`: a whole study."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lce.checks import check_float32_weights, check_trainer
from lce.commands.arguments import Arguments
from lce.commands.common import add_trainer, read
from lce.foundations.errors import LceError
from lce.study.settings import StudySettings
from lce.study.study_checks import check_study


def add_study(parser: ArgumentParser) -> None:
    parser.add_class_arguments(StudySettings)
    add_trainer(parser)


def _add(parser: ArgumentParser) -> None:
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="list the cells and what they will take")
    parser.add_argument("--status", action="store_true", help="say what is done, running, failed and left")


ARGUMENTS = Arguments(add_study, _add, Path("configs/study.yaml"))


def sweep(values: Namespace) -> None:
    """Run a study: train, edit and measure all its cells, on the cores of this machine or on a Ray cluster.

    A cell that has its result is not run again: the same command resumes a study that was killed, and tries again
    what failed. One model over several GPUs trains by `lce train` (torchrun …) into the study's folder beforehand.
    """
    study, trainer_options = read(StudySettings, values), values["trainer"].as_dict()
    check_study(study)
    check_trainer(trainer_options, study.train.batch_size)
    if study.features.is_asked:
        check_float32_weights(trainer_options)

    from lce.models.converted import provide
    from lce.study.status import print_plan, print_status
    from lce.study.sweep import run_sweep, status

    for name in (study.base, *study.own_models.values()):
        provide(name, study.data.downloads)
    if study.directions.is_asked:
        from lce.models.assembled import provide_mini

        provide_mini(study.directions.model or study.base, study.data.downloads, study.directions.projector)
    if values.dry_run:
        print_plan(study, trainer_options)
    elif values.status:
        print_status(status(study, trainer_options))
    else:
        found = run_sweep(study, trainer_options)
        print_status(found)
        if found.failed:
            raise LceError(f"{len(found.failed)} cells failed; the same command tries them again")
        print(study.experiment)
