"""`lce localize`: where two models differ."""

from dataclasses import asdict, replace
from pathlib import Path

from jsonargparse import Namespace

from lce.commands.common import COMPARISON, result_name, settings_of
from lce.config import Settings

ARGUMENTS = COMPARISON


def localize(values: Namespace) -> None:
    """Find the weights in which target and reference differ; write the selection and its heat map.

    TARGET and REFERENCE are variants that `lce train` made (stereotypical, anti-stereotypical, neutral), folders, or
    names on the hub; without them, those of the configuration, or of its contrast.

    `lce localize features`, `heads` and `directions` select other units than weights.
    """
    settings, _ = settings_of(values)

    from lce.commands.tables import print_selection
    from lce.localize.selection import Selection

    path = run_localize(settings)
    print_selection(Selection.load(path))
    print(path)


def run_localize(settings: Settings) -> Path:
    """Write the selection, its heat map and the settings beside it; return the selection's file.

    A selection that the settings name is for edits, and left aside.
    """
    from lce.foundations.files import save_config
    from lce.foundations.overwriting import check_selection_file
    from lce.localize.heat_map import save_heat_map
    from lce.localize.pair import localization_of, open_models, select

    siblings = {".png": "heat map", ".yaml": "settings file of localize"}
    settings = replace(settings, selection=None)
    if settings.output:
        check_selection_file(Path(settings.output), siblings)
    pair, _ = open_models(settings)
    name = f"{result_name(settings, pair, localization_of(pair, settings))}.safetensors"
    default = Path(settings.experiment) / f"seed-{settings.seed}" / "selections" / name
    path = Path(settings.output) if settings.output else default
    selection = select(pair, settings, path)
    save_heat_map(selection, path.with_suffix(".png"))
    save_config(path.with_suffix(".yaml"), asdict(settings), "localize")
    return path
