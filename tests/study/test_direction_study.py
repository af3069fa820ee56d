"""A study of directions: its cells, their results on the planted model, and several units in models of their own."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import direction_runs
import pytest
import yaml
from planted_vlm import PLANTED

from lce.cli import main
from lce.commands.arguments import settings_in
from lce.commands.sweep import add_study
from lce.foundations.errors import LceError
from lce.localize.direction_settings import Choice
from lce.study.cells import Cell, cell_name, expand
from lce.study.context import context_of, record_base
from lce.study.cost import costs
from lce.study.direction_study import DirectionStudy
from lce.study.feature_study import FeatureStudy
from lce.study.head_study import HeadStudy
from lce.study.report.results import load_results
from lce.study.run_cell import make
from lce.study.settings import StudySettings
from lce.study.study_checks import check_study
from lce.study.sweep import groups_of
from lce.study.worker_cache import WorkerCache

NAMES = ("where", "chosen_by", "matched", "question", "k", "top", "batch_size", "device")
DIRECTIONS = DirectionStudy(edits=["zero", "mean"], random_directions=20)
SETTINGS = StudySettings(seeds=[0], variants=[], edits=[], directions=DIRECTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return direction_runs.configured(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def study(folder: Path) -> StudySettings:
    quick = {name: direction_runs.QUICK[name] for name in NAMES}
    asked = replace(
        DIRECTIONS, **quick, choice=Choice(**direction_runs.QUICK["choice"]), pictures=str(folder / "pictures"),
        sentences=str(folder / "sentences.yaml"),
    )  # fmt: skip
    return replace(SETTINGS, base=str(folder / "planted"), experiment=str(folder / "study"), directions=asked)


@pytest.fixture(scope="module")
def swept(study: StudySettings) -> Path:
    """The folder of the finished study, made as a worker makes it; Ray, whose start takes longer, is not needed."""
    run = Path(study.experiment)
    (run / "cells").mkdir(parents=True)
    cache = WorkerCache(study, {})
    [group] = groups_of(study, expand(study))
    for cell in group.cells:
        make(cache, cell)
    (run.parent / "study.yaml").write_text(yaml.safe_dump(asdict(study)), encoding="utf-8")
    assert main(["sweep", "--config", str(run.parent / "study.yaml")]) == 0
    return run


def results(run: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (run / "cells").glob("*.json")]
    return {(row["cell"]["kind"], row["cell"].get("strategy")): row for row in found}


def test_every_edit_and_strength_is_a_cell_with_its_random_directions() -> None:
    cells = expand(replace(SETTINGS, directions=replace(DIRECTIONS, alpha=[1.0, 0.5])))
    assert [(cell.kind, cell.strategy, cell.alpha) for cell in cells] == [
        ("directions", None, None),
        *[(kind, edit, alpha) for edit in ("zero", "mean") for alpha in (1.0, 0.5)
          for kind in ("directions", "random-directions")],
    ]  # fmt: skip
    assert {cell.seed for cell in cells} == {None, 0}, "the model and the edit do not depend on the seed"
    assert len(expand(replace(SETTINGS, directions=replace(DIRECTIONS, random_directions=0)))) == 3


def test_cells_hold_what_lce_edit_directions_measures(
    folder: Path, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--without_people", "{}", "--shuffles", "0"]
    assert direction_runs.directions(folder, "edit", *few) == 0
    wanted = json.loads(Path(capsys.readouterr().out.splitlines()[-1]).read_text(encoding="utf-8"))
    found = results(swept)
    assert found["directions", None]["layer"] == PLANTED
    assert found["directions", None]["separation"] == wanted["before"]["separation"]
    for number, edit in enumerate(("zero", "mean")):
        for name in ("taken", "moved"):
            value = found["directions", edit][name]["value"]
            assert value == pytest.approx(wanted["edits"][number][name]["value"], abs=1e-5)
    drawn = found["random-directions", "zero"]["directions"]
    for mine, other in zip(drawn, wanted["random"], strict=True):
        assert mine["moved"]["value"] == pytest.approx(other["moved"]["value"], abs=1e-5)
        assert mine["scaled"]["moved"]["value"] == pytest.approx(other["scaled"]["moved"]["value"], abs=1e-4)


def test_the_report_has_a_table(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(swept)]) == 0
    tables = (swept / "report/tables.md").read_text(encoding="utf-8")
    assert tables.startswith("# Directions of ")
    assert "## Directions: what is held inside, and the answers" in tables
    assert f"| zero | 1 | {PLANTED + 1} | 100%" in tables
    assert "The paper's claims" not in tables
    rows = (swept / "report/directions.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3


def test_names_differ_exactly_where_results_may(folder: Path, study: StudySettings) -> None:
    edited = Cell("directions", strategy="zero", alpha=1.0)

    def name(cell: Cell = edited, **changed: Any) -> str:
        asked = replace(study, experiment=str(folder / "other"), directions=replace(study.directions, **changed))
        return cell_name(asked, context_of(asked, {}), cell)

    assert name() == name(batch_size=3, random_directions=7, edits=["zero"])
    drawn = replace(edited, kind="random-directions", seed=0)
    assert name(drawn) != name(drawn, random_directions=7)
    for changed in ({"k": 5}, {"source": "pictures"}, {"where": {"split": ["held-out"]}}, {"layers": [1]}):
        assert name(**changed) != name()
    assert name(model=str(folder / "model")) != name(), "another model"
    assert name(model=study.base) == name()


def test_a_report_on_another_machine_knows_the_cells(
    swept: Path, study: StudySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells are named after the device they are made on, which the study's folder remembers."""
    monkeypatch.setattr("lce.models.image_text.chosen_device", lambda asked: "cuda")
    assert len(load_results(swept).cells) == len(expand(study))
    elsewhere = replace(study, experiment=str(swept.parent / "unswept"))
    on_gpu, on_cpu = (cell_name(one, context_of(one, {}), Cell("directions")) for one in (elsewhere, study))
    assert on_gpu != on_cpu


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"directions": replace(DIRECTIONS, k=0)}, "directions.k: expected"),
        ({"directions": replace(DIRECTIONS, alpha=[1.0, 1.0])}, "directions.alpha: expected each once"),
        ({"directions": replace(DIRECTIONS, alpha=[0.0])}, "directions.alpha: expected a number other than 0"),
        (
            {"variants": ["neutral"]},
            "variants: expected [] in a study of directions whose base reads pictures",
        ),
        ({"features": FeatureStudy(rules=["counts"])}, "features.rules: expected [] in a study of directions"),
        ({"heads": HeadStudy(attributes={"gender": None})}, "heads.model, directions.model: name one of them"),
    ],
)
def test_impossible_settings_are_one_line(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LceError) as caught:
        check_study(replace(SETTINGS, **changed))
    assert message in str(caught.value)
    check_study(SETTINGS)


def test_units_in_models_of_their_own_go_together(folder: Path) -> None:
    path = Path(__file__).parents[2] / "configs/study-units.yaml"
    found = settings_in(path, add_study)
    assert {name for name in found if name.endswith(".model")} == {"features.model", "heads.model", "directions.model"}
    own = replace(
        SETTINGS, variants=["neutral"], directions=replace(DIRECTIONS, model=str(folder / "planted")),
        heads=HeadStudy(attributes={"gender": None}, model=str(folder / "clip")),
    )  # fmt: skip
    kinds = {cell.kind for cell in expand(own)}
    assert kinds == {"train", "measure", "heads", "random-heads", "directions", "random-directions"}
    assert own.own_models == {"heads": str(folder / "clip"), "directions": str(folder / "planted")}
    asked = [Cell("directions"), Cell("random-directions", 0), Cell("heads", 0, attribute="gender")]
    assert all(cost.seconds > 0 for cost in costs(own, WorkerCache(own, {}), asked).values())


def test_a_base_that_reads_pictures_goes_with_features_of_another_model(study: StudySettings, base: Path) -> None:
    """What is asked of text concerns the other model alone."""
    features = FeatureStudy(rules=["counts"], model=str(base))
    both = replace(study, features=features, experiment=f"{study.experiment}-both")
    check_study(both)
    record_base(both)
    about = context_of(both, {})
    assert {"base", "shared", "features", "directions"} <= set(about)
    assert about["features"]["model"] != about["base"]["base_fingerprint"]
