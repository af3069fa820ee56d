"""The results of a study as tables, one row per cell and score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jsonargparse import ArgumentError, ArgumentParser

from lce.foundations.configuration import read_configuration
from lce.foundations.errors import LceError
from lce.foundations.files import read_json
from lce.foundations.paths import CONFIG
from lce.study.cell_files import CellFiles
from lce.study.cells import Cell, expand
from lce.study.settings import ANTI_STEREOTYPICAL, NEUTRAL, STEREOTYPICAL, StudySettings

LEANING = {ANTI_STEREOTYPICAL: -1, NEUTRAL: 0, STEREOTYPICAL: 1}
EDIT = ["target", "reference", "sparsity", "localization", "k", "strategy", "alpha", "control", "draw", "last_layers"]
"""Columns that tell one edit from another, seeds apart."""
WAY = ["localization", "k", "strategy", "alpha"]
"""Those of them that say how it is edited."""
PAPER_ALPHAS = (0.5, 1.0, 2.0, -2.0)


@dataclass(frozen=True)
class Results:
    """All cells of a study that have a result, how many there should be, and the options of its Trainer."""

    run: Path
    study: StudySettings
    cells: Mapping[Cell, dict[str, Any]]
    planned: int
    trainer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> str:
        """A sentence on the cells without a result; empty if there are none."""
        left = self.planned - len(self.cells)
        return f"{left:,} of {self.planned:,} cells have no result yet." if left else ""

    def of(self, kind: str) -> dict[Cell, dict[str, Any]]:
        """The results of one kind."""
        return {cell: result for cell, result in self.cells.items() if cell.kind == kind}

    @property
    def weat(self) -> str:
        """The association test that stands for bias where one score has to."""
        return Path(self.study.evaluation.weat[0]).stem

    @property
    def paper_bias(self) -> list[str]:
        """The paper's scores of bias that were measured: its claims are judged by them."""
        return [name for name in (self.weat, "stereoset_ss", "crows_pairs") if name in set(self.measured["metric"])]

    @property
    def bias(self) -> list[str]:
        """All scores of bias that were measured."""
        return [
            *self.paper_bias,
            *(["occupation_pronouns"] if "occupation_pronouns" in set(self.measured["metric"]) else []),
        ]

    @cached_property
    def trained(self) -> pd.DataFrame:
        """variant, seed, sparsity → perplexity of the training's own evaluation, dense_perplexity, ratio."""
        rows = [cell.known() | result for cell, result in self.of("train").items()]
        frame = _table(rows, ["variant", "seed", "sparsity", "perplexity", "dense_perplexity"])
        return frame.assign(ratio=frame["perplexity"] / frame["dense_perplexity"])

    @cached_property
    def measured(self) -> pd.DataFrame:
        """variant, seed, sparsity, metric → value, p_value."""
        rows = [row for item in self.of("measure").items() for row in _scores(*item)]
        return _table(rows, ["variant", "seed", "sparsity", "metric", "value", "p_value"])

    @cached_property
    def edits(self) -> pd.DataFrame:
        """Columns of an edit, seed, metric → value, p_value, before, moved, intended.

        ``moved`` is value − before; ``intended`` the same with the sign that makes the intended direction positive:
        towards the reference, for a negative α away from it.
        """
        rows = [row for item in self.of("edit").items() for row in _scores(*item)]
        frame = _table(rows, [*EDIT, "seed", "metric", "value", "p_value", "selected_share"])
        if not len(frame) or not len(self.measured):
            return frame.iloc[:0].assign(before=0.0, moved=0.0, intended=0.0)
        unedited = self.measured.rename(columns={"variant": "target", "value": "before"})
        frame = frame.merge(unedited[["target", "seed", "sparsity", "metric", "before"]], "inner")
        moved = frame["value"] - frame["before"]
        leaning = np.sign(frame["reference"].map(LEANING) - frame["target"].map(LEANING))
        sign = leaning * np.sign(frame["alpha"].fillna(1))
        return frame.assign(moved=moved, intended=moved * sign)

    @cached_property
    def informed(self) -> pd.DataFrame:
        """The edits themselves: no control, all layers."""
        return self.edits[(self.edits["control"] == "none") & self.edits["last_layers"].isna()]

    @cached_property
    def both_ways(self) -> pd.DataFrame:
        """Of the informed edits, those between the two biased variants."""
        return between_biased(self.informed)

    @cached_property
    def swept(self) -> pd.DataFrame:
        """Of the informed edits, those at the study's own k."""
        return self.informed[self.informed["k"].isna() | (self.informed["k"] == self.study.k)]

    @cached_property
    def at_paper_settings(self) -> pd.DataFrame:
        """Of these, the strategies of the paper, in both directions between the two biased variants."""
        frame = between_biased(self.swept)
        return frame[frame["alpha"].isna() | frame["alpha"].isin(PAPER_ALPHAS)]

    @cached_property
    def tuned(self) -> pd.DataFrame:
        """Columns of an edit (none for unedited models, whose ``variant`` is given), seed, task, metric → value."""
        rows = [row for item in self.of("finetune").items() for row in _scores(*item)]
        return _table(rows, ["variant", *EDIT, "seed", "task", "metric", "value"])


def between_biased(edits: pd.DataFrame) -> pd.DataFrame:
    """Those of the ``edits`` whose target and reference are the two biased variants."""
    biased = (STEREOTYPICAL, ANTI_STEREOTYPICAL)
    return edits[edits["target"].isin(biased) & edits["reference"].isin(biased)]


NUMBERS = {"sparsity", "alpha", "value", "p_value", "selected_share", "perplexity", "dense_perplexity", "last_layers"}


def _table(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """The ``columns`` of ``rows``, with the same types however many rows there are."""
    frame = pd.DataFrame(rows).reindex(columns=columns)
    return frame.astype({name: float if name in NUMBERS else object for name in columns})


def _scores(cell: Cell, result: dict[str, Any]) -> list[dict[str, Any]]:
    size = {} if cell.k is None else {"k": cell.k}
    shared = cell.known() | size | {"selected_share": result.get("selected_share")}
    return [
        shared | {"metric": name, "value": score["value"], "p_value": score.get("p_value")}
        for name, score in result["scores"].items()
    ]


def load_results(run: Path) -> Results:
    """Read the results of the study in ``run``; those that are missing are left out.

    Raises:
        LceError: ``run`` holds no study, or none of its cells has a result.
    """
    study, trainer_options = load_study(run)
    files = CellFiles(study, trainer_options)
    cells = expand(study)
    found = {cell: read_json(path) for cell in cells if (path := files.path(cell)).exists()}
    if not found:
        raise LceError(f"{run}: no cell of the study has a result yet; `lce sweep` makes them")
    return Results(run, study, found, len(cells), trainer_options)


def load_study(run: Path) -> tuple[StudySettings, dict[str, Any]]:
    """The settings that `lce sweep` recorded in ``run``, and the Trainer's options."""
    path = run / CONFIG
    if not path.is_file():
        raise LceError(f"{path}: no such file; `lce report` takes the folder of a study that `lce sweep` has begun")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(StudySettings, "study")
    parser.add_argument("--trainer", type=dict)
    content = read_configuration(path)
    trainer = content.pop("trainer", {})
    try:
        parsed = parser.instantiate(parser.parse_object({"study": content, "trainer": trainer}))
    except ArgumentError as error:
        raise LceError(f"{path}: is no study ({' '.join(str(error).split())})") from error
    study: StudySettings = parsed["study"]
    study.experiment = str(run)
    return study, parsed["trainer"]
