"""`lce localize heads` and `lce edit heads`: attention heads of a CLIP."""

from jsonargparse import ArgumentParser, Namespace

from lce.commands.arguments import Arguments
from lce.commands.common import read
from lce.localize.head_settings import HeadSettings, check_heads


def _add(parser: ArgumentParser) -> None:
    parser.add_class_arguments(HeadSettings)


ARGUMENTS = Arguments(_add, words=("model",))


def localize_heads(values: Namespace) -> None:
    """Select the attention heads of a CLIP's image encoder that carry a concept, such as the gender of people.

    The concept's direction comes from prompts alone. Heads are ranked by how much of its spread over pictures they
    write, and described by the texts that span what they write.
    """
    settings = read(HeadSettings, values)
    check_heads(settings)

    from lce.commands.head_run import run_localize_heads
    from lce.commands.head_tables import print_heads

    path, heads = run_localize_heads(settings)
    print_heads(heads)
    print(path)


def edit_heads(values: Namespace) -> None:
    """Audit a CLIP: measure its bias, edit the attention heads that carry the concept, and write the patch.

    What the edit changes is compared with every single head and with random heads of the same layers. The patch is one
    of weights, which plain transformers loads once it is applied. The last line is the result's path.
    """
    settings = read(HeadSettings, values)
    check_heads(settings)

    from lce.commands.head_run import run_edit_heads
    from lce.commands.head_tables import print_head_edits
    from lce.foundations.files import read_json

    path = run_edit_heads(settings)
    print_head_edits(read_json(path))
    print(path)
