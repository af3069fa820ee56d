"""Where the results of a study lie: all that its driver, its status and its report need, without any model."""

from pathlib import Path
from typing import Any

from lce.foundations.atomic_files import replaced_file
from lce.foundations.paths import CELLS
from lce.study.cells import Cell, cell_name
from lce.study.context import context_of
from lce.study.settings import StudySettings


class CellFiles:
    """The files of a study's cells, whose names tell all that their results depend on."""

    def __init__(self, study: StudySettings, trainer_options: dict[str, Any]) -> None:
        self.study, self.trainer_options = study, trainer_options
        self.context = context_of(study, trainer_options)
        self.folder = Path(study.experiment) / CELLS

    def path(self, cell: Cell) -> Path:
        return self.folder / f"{cell_name(self.study, self.context, cell)}.json"


def write_failure(path: Path, reason: str, trace: str = "") -> None:
    """Write why there is no result; the first line is the reason."""
    with replaced_file(path) as temporary:
        temporary.write_text(f"{' '.join(reason.split())}\n{trace}", encoding="utf-8")
