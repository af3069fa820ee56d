"""One self-contained HTML page about a patch: where it comes from, what it measured, where its weights sit."""

from pathlib import Path

from jinja2 import Environment, PackageLoader

from lce.foundations.atomic_files import replaced_file
from lce.foundations.figures import as_svg
from lce.foundations.overwriting import check_replaceable
from lce.localize.components import cells
from lce.localize.heat_map import heat_map
from lce.patch.format import Patch
from lce.patch.text import parameter_rows, provenance_rows, score_rows


def write_page(path: str | Path, patch: Patch, name: str, size: int) -> None:
    """Write the page about the patch file ``name`` of ``size`` bytes; LceError if ``path`` is somebody else's file."""
    check_replaceable(path, "page")
    environment = Environment(
        loader=PackageLoader("lce", "patch"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    counts = {name: about.count for name, about in patch.parameters.items()}
    where = cells(counts, {name: about.shape for name, about in patch.parameters.items()})
    page = environment.get_template("page.html").render(
        name=name,
        size=size,
        patch=patch,
        provenance=provenance_rows(patch.provenance),
        scores=score_rows(patch.provenance),
        rows=list(parameter_rows(patch)),
        figure=as_svg(heat_map(where, "changed, of the parameters that the patch touches")),
    )
    with replaced_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
