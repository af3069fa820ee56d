"""`lce localize features` and `lce edit features`: features of a sparse autoencoder."""

from jsonargparse import ArgumentParser, Namespace

from lce.commands.arguments import Arguments
from lce.commands.common import add_trainer, read
from lce.localize.feature_settings import FeatureSettings, check_features


def _add(parser: ArgumentParser) -> None:
    parser.add_class_arguments(FeatureSettings)
    add_trainer(parser)


ARGUMENTS = Arguments(_add, words=("model",))


def localize_features(values: Namespace) -> None:
    """Select the features of a sparse autoencoder that carry what occupations say about gender.

    MODEL reads about 40 occupations, 20 of them dominated by women; features that tell the two sides apart are
    selected, and written with what is known of each: activations, counts, and the text on which it is most active.
    """
    settings = read(FeatureSettings, values)
    check_features(settings, is_edit=False)

    from lce.commands.feature_run import run_localize_features
    from lce.commands.feature_tables import print_features
    from lce.localize.features import about
    from lce.localize.selection import Selection

    path = run_localize_features(settings)
    print_features(about(Selection.load(path)))
    print(path)


def edit_features(values: Namespace) -> None:
    """Scale the features that carry gender, measure what changes on occupations held out, and write the patch.

    h becomes h + Σ (s − 1) z W_dec over the selected features, by a hook; no weight changes. The edit is compared with
    other rules, directions taken out, and random features. The last line is the result's path.
    """
    settings, trainer_options = read(FeatureSettings, values), values["trainer"].as_dict()
    check_features(settings)

    from lce.commands.feature_run import run_edit_features
    from lce.commands.feature_tables import print_feature_edits
    from lce.foundations.files import read_json
    from lce.training.trainer_options import check_machine, on_one_device

    if settings.measure:
        check_machine(on_one_device(trainer_options))
    path = run_edit_features(settings, trainer_options)
    print_feature_edits(read_json(path))
    print(path)
