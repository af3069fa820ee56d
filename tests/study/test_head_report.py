"""The report of a study of attention heads."""

from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import head_studies
import pandas as pd
import pytest
from head_studies import HEADS, result_of

from lce.cli import main
from lce.foundations.errors import LceError
from lce.metrics.group_association import LEAN
from lce.study.cell_kinds import MAKERS
from lce.study.cells import Cell, expand
from lce.study.report.head_edits import head_edits, means
from lce.study.report.report import sections
from lce.study.report.results import load_results, load_study
from lce.study.worker_cache import WorkerCache


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished study."""
    return head_studies.finished(head_studies.configured(tmp_path_factory.mktemp("heads")))


def test_the_planted_head_is_chosen_and_does_what_no_random_head_does(swept: Path) -> None:
    unedited = result_of(swept, kind="heads", attribute="gender", seed=0)
    assert (unedited["order"][0]["layer"], unedited["order"][0]["head"]) == clips.PLANTED
    frame = head_edits(load_results(swept)).set_index(["attribute", "size", "edit"])
    assert len(frame) == 8
    for edit in HEADS.edits:
        row = frame.loc[("gender", 1, edit)]
        assert row["taken"] > 0.9
        assert row["below"] == 1
        assert row["sets"] == clips.HEADS - 1, "all other heads of the layer"
        assert row["taken"] == pytest.approx(1 - abs(row["lean"]) / abs(row["lean_before"]))
    assert (frame["taken_low"] <= frame["taken"]).all()
    assert (frame["random_low"] <= frame["random_high"]).all()


def test_the_report_has_a_table_and_a_figure_and_nothing_of_language_models(
    swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise LceError("a report needs no pictures")

    monkeypatch.setattr("lce.evaluation.audit_inputs.content_of_inputs", gone)
    assert main(["report", str(swept)]) == 0
    [section] = sections(load_results(swept))
    assert all(len(row) == len(section.headings) for row in section.rows)
    assert len(section.rows) == 2 * (2 + 4), "of each attribute: unedited, its null, and four edits"
    report = swept / "report"
    assert {path.stem for path in (report / "figures").iterdir()} == {"heads"}
    page, tables = ((report / name).read_text(encoding="utf-8") for name in ("report.html", "tables.md"))
    assert page.count("<svg") == 1
    for text in (page, tables):
        for word in ("paper's claims", "perplexity", "Downstream", "autoencoder", "evaluation"):
            assert word not in text
    assert "Attention heads of" in tables.splitlines()[0]
    lean = result_of(swept, kind="heads", attribute="gender", seed=0)["scores"][LEAN]
    assert f"| gender |  | unedited | {lean['value']:.3f} ({lean['interval'][0]:.3f} to" in tables
    [row] = [line for line in tables.splitlines() if line.startswith("| gender | 1 | mean |")]
    assert f"| 100% of {clips.HEADS - 1} | {lean['n']}, 36 × 1 |" in row
    rows = pd.read_csv(report / "heads.csv")
    assert len(rows) == 8
    assert set(rows["n"]) == {lean["n"]}


def test_seeds_are_averaged_and_a_lean_within_its_null_is_named(swept: Path) -> None:
    once = load_results(swept)
    again = {replace(cell, seed=1): deepcopy(result) for cell, result in once.cells.items()}
    for cell, result in again.items():
        if cell.kind == "heads" and cell.count is not None:
            result["reduced"][LEAN]["value"] -= 0.5
        elif cell.kind == "heads" and cell.attribute == "skin-tone":
            result["null"][LEAN] = 9.0
    both = replace(once, cells={**once.cells, **again})
    one, two = (means(head_edits(results)) for results in (once, both))
    assert (two["results"] == 2).all()
    assert two["taken"].tolist() == pytest.approx((one["taken"] - 0.25).tolist())
    assert two["lean"].tolist() == pytest.approx(one["lean"].tolist())
    [section] = sections(both)
    assert "The lean by skin-tone does not exceed percentile 99 of its null" in section.text
    assert "The lean by gender does not" not in section.text
    assert "by the first seed" in section.text


def test_a_size_beyond_the_heads_that_are_described_is_said_and_no_failure(swept: Path, tmp_path: Path) -> None:
    study, options = load_study(swept)
    study.experiment, study.heads.sizes = str(tmp_path), [1, 99]
    cache = WorkerCache(study, options)
    cells = [cell for cell in expand(study) if cell.attribute == "gender" and cell.strategy in (None, "mean")]
    found = {cell: MAKERS[cell.kind](cache, cell) for cell in cells}
    [section] = sections(replace(load_results(swept), study=study, cells=found))
    assert [row[1] for row in section.rows] == ["", "", "1"]
    assert "Fewer than 99 heads are described by a word for one of its groups." in section.text


@pytest.mark.parametrize(("sets", "beyond"), [(18, 0), (19, 1)])
def test_few_random_sets_show_nothing(swept: Path, sets: int, beyond: int) -> None:
    results = load_results(swept)
    edited = Cell("heads", 0, count=1, strategy="mean", attribute="gender")
    drawn = replace(edited, kind="random-heads")
    cells = {edited: results.cells[edited], drawn: {"sets": [{"reduced": {LEAN: 0.1}}] * sets}}
    cells[edited]["differences"]["accuracy"]["value"] = 0.0
    [section] = sections(replace(results, cells=cells))
    assert (
        f"Of 1 edits, 1 take at least 20% of the lean away and at most 1 point of accuracy; of these, {beyond} do"
        in (section.text)
    )


@pytest.mark.parametrize("kept", ["heads-seed0-count1-mean*", "random-heads*", "heads-seed0-skin-tone*"])
def test_an_unfinished_study_is_reported(swept: Path, tmp_path: Path, kept: str) -> None:
    """Without the unedited model, without the selected heads, and without any edit."""
    (tmp_path / "part/cells").mkdir(parents=True)
    for path in [swept / "config.yaml", swept / "base.json", *(swept / "cells").glob(kept)]:
        shutil.copy(path, tmp_path / "part" / path.relative_to(swept))
    assert main(["report", str(tmp_path / "part")]) == 0
    page = (tmp_path / "part/report/report.html").read_text(encoding="utf-8")
    assert "of 18 cells have no result yet" in page
    assert page.count("<svg") == (1 if "mean" in kept else 0)
