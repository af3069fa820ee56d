"""`lce localize directions` and `lce edit directions`: directions in a vision-language model."""

from jsonargparse import ArgumentParser, Namespace

from lce.commands.arguments import Arguments
from lce.commands.common import read
from lce.localize.direction_settings import DirectionSettings, check_directions


def _add(parser: ArgumentParser) -> None:
    parser.add_class_arguments(DirectionSettings)


ARGUMENTS = Arguments(_add, words=("model",))


def localize_directions(values: Namespace) -> None:
    """Find the layer of a vision-language model whose visual tokens tell two groups of people apart best.

    Nothing is trained for it: each visual token is compared with texts about both groups that the model reads itself,
    and leans towards the group of the texts that are nearest (LALS). The selection is that layer's direction from the
    one group to the other.
    """
    settings = read(DirectionSettings, values)
    check_directions(settings)

    from lce.commands.direction_run import run_localize_directions
    from lce.commands.direction_tables import print_layers

    path, rows, layer = run_localize_directions(settings)
    print_layers(rows, layer)
    print(path)


def edit_directions(values: Namespace) -> None:
    """Audit a vision-language model: what it sees inside and does not say, and an edit that tests it.

    MODEL reads pictures and writes text, such as LLaVA or Qwen2-VL. The direction is edited in the layer that tells the
    groups apart best, and compared with random directions there and with the directions of the other layers. The patch
    needs a hook: `lce.from_pretrained` applies it, and it works under generate(). The last line is the result's path.
    """
    settings = read(DirectionSettings, values)
    check_directions(settings)

    from lce.commands.direction_run import run_edit_directions
    from lce.commands.direction_tables import print_direction_edits
    from lce.foundations.files import read_json

    path = run_edit_directions(settings)
    print_direction_edits(read_json(path))
    print(path)
