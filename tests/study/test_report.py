"""The report of a finished study: one page that needs nothing else, and the same tables as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lce.cli import main
from lce.study.report.report import sections
from lce.study.report.results import load_results


@pytest.fixture(scope="module")
def report(swept: Path) -> Path:
    assert main(["report", str(swept)]) == 0
    return swept / "report"


def test_the_page_needs_nothing_else(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=[\"'](?!#|data:)", page), "no outside resource"
    assert page.count("<svg") >= 3
    for number in range(1, 16):
        assert f"<td>C{number}</td>" in page


def test_claims_figures_and_tables_are_written_as_files(report: Path) -> None:
    claims = json.loads((report / "claims.json").read_text(encoding="utf-8"))
    assert [claim["number"] for claim in claims] == [f"C{i}" for i in range(1, 16)]
    assert all(claim["rule"] and claim["measured"] and claim["holds"] in (True, False, None) for claim in claims)
    assert {path.name for path in (report / "figures").glob("strategies.*")} == {"strategies.svg", "strategies.png"}
    tables = (report / "tables.md").read_text(encoding="utf-8")
    assert "| C9 |" in tables
    assert "## Does the localisation matter?" in tables


def test_what_is_told_agrees_with_the_cells(swept: Path, report: Path) -> None:
    results = load_results(swept)
    assert len(results.cells) == results.planned
    frame = pd.read_csv(report / "edits.csv")
    assert len(frame) == 56 * 3, "56 edits with three scores each"
    row = frame[(frame["control"] == "none") & (frame["metric"] == "weat8") & (frame["alpha"] == 2)].iloc[0]
    assert row["moved"] == pytest.approx(row["value"] - row["before"], abs=1e-4)
    towards = -1 if row["target"] == "stereotypical" else 1
    assert row["intended"] == pytest.approx(towards * row["moved"], abs=1e-4)
    titles = [section.title for section in sections(results)]
    assert len(titles) == len(set(titles))
    for section in sections(results):
        assert all(len(cells) == len(section.headings) for cells in section.rows), section.title


def test_tensorboard_has_the_curves(report: Path) -> None:
    [folder] = (report / "logs").glob("stereotypical-anti-stereotypical-0.4-mask-linear-none-0")
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("weat8")] == [0, 100, 200]
    assert any("hparams" in tag for tag in events.PluginTagToContent("hparams"))


def test_an_unfinished_study_is_reported_as_such(swept: Path, tmp_path: Path) -> None:
    (tmp_path / "part/cells").mkdir(parents=True)
    (tmp_path / "part/config.yaml").write_bytes((swept / "config.yaml").read_bytes())
    assert main(["report", str(tmp_path / "part")]) == 2
    for path in list((swept / "cells").glob("measure-*.json"))[:3]:
        (tmp_path / "part/cells" / path.name).write_bytes(path.read_bytes())
    assert main(["report", str(tmp_path / "part")]) == 0
    planned = load_results(swept).planned
    page = (tmp_path / "part/report/report.html").read_text(encoding="utf-8")
    assert f"{planned - 3} of {planned} cells have no result yet" in page


def test_a_folder_without_a_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "takes the folder of a study" in capsys.readouterr().err
