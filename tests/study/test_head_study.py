"""A study of attention heads: its cells, and their results on a CLIP with a planted head."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import head_audits
import head_studies
import pytest
from head_studies import CELLS, HEADS, SETTINGS, result_of

from lce.cli import main
from lce.data.pictures.batches import PictureBatches
from lce.foundations.errors import LceError
from lce.study.cells import Cell, cell_name, expand
from lce.study.context import context_of
from lce.study.feature_study import FeatureStudy
from lce.study.report.results import load_study
from lce.study.run_cell import make
from lce.study.settings import StudySettings
from lce.study.study_checks import check_study
from lce.study.sweep import groups_of
from lce.study.worker_cache import WorkerCache


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return head_studies.configured(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def swept(config: Path) -> Path:
    """The folder of the finished study."""
    return head_studies.finished(config)


def test_every_attribute_size_and_edit_is_a_cell_and_nothing_is_trained() -> None:
    cells = expand(SETTINGS)
    assert len(cells) == len(set(cells)) == 2 * CELLS
    found = Counter((cell.kind, cell.attribute, cell.count, cell.strategy) for cell in cells if cell.seed == 1)
    wanted = [("heads", attribute, None, None) for attribute in HEADS.attributes]
    wanted += [
        (kind, attribute, size, edit) for kind in ("heads", "random-heads")
        for attribute in HEADS.attributes for size in (1, 2) for edit in ("mean", "projection")
    ]  # fmt: skip
    assert found == Counter(wanted)
    alone = expand(replace(SETTINGS, heads=replace(HEADS, random_sets=0)))
    assert alone == [cell for cell in cells if cell.kind == "heads"]
    assert not any(cell.attribute for cell in expand(StudySettings()))


def test_one_worker_makes_all_of_an_attribute() -> None:
    groups = groups_of(SETTINGS, expand(SETTINGS))
    assert sorted((group.cells[0].attribute, group.cells[0].seed) for group in groups) == [
        ("gender", 0), ("gender", 1), ("skin-tone", 0), ("skin-tone", 1),
    ]  # fmt: skip
    assert not any(group.needs for group in groups)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sizes": []}, r"heads\.sizes: expected each once, at least one, got \[\]"),
        ({"sizes": [2, 2]}, r"heads\.sizes: expected each once"),
        ({"sizes": [1, 0]}, r"heads\.sizes: expected positive numbers of heads, got 0"),
        ({"edits": []}, r"heads\.edits: expected each once, at least one"),
        ({"random_sets": -1}, r"heads\.random_sets: expected"),
        ({"rank": 30}, r"heads\.rank: expected at most texts \(20\), got 30"),
        (
            {"leaning": {"age": ["cook"]}},
            r"heads\.leaning: expected classes for some of .* gender, skin-tone, got 'age'",
        ),
        ({"templates": ["a person"]}, r"heads\.templates: expected \{\} once in each"),
    ],
)
def test_impossible_settings_are_one_line(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LceError, match=message) as caught:
        check_study(replace(SETTINGS, heads=replace(HEADS, **changed)))
    assert "\n" not in str(caught.value)
    check_study(SETTINGS)


def test_what_a_study_of_heads_cannot_have_beside_them(
    config: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for changed, message in (
        (
            {"variants": ["neutral"]},
            "variants: expected [] in a study of heads whose base reads pictures; or name heads.model, got ['neutral']",
        ),
        ({"features": FeatureStudy(rules=["counts"])}, "features.rules: expected [] in a study of heads"),
    ):
        with pytest.raises(LceError) as caught:
            check_study(replace(SETTINGS, **changed))
        assert message in str(caught.value)
    for options, message in (
        (["--base", str(base)], f"model {base}: is no CLIP"),
        (["--heads.pictures", "nowhere"], "nowhere/table.csv: cannot be read"),
        (["--heads.attributes", "{height: null}"], "attribute height: is none of age, gender, skin-tone"),
        (["--heads.attributes", "{gender: shape}"], "has no column 'shape'"),
    ):
        assert main(["sweep", "--config", str(config), "--experiment", str(tmp_path / "run"), *options]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
    assert not list((tmp_path / "run").glob("cells/*")), "refused before any worker starts"


def test_names_differ_exactly_where_results_may(config: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(config.parent / "pictures", pictures)
    base, other = config.parent / "planted", config.parent / "random"
    study = replace(SETTINGS, base=str(base), heads=replace(HEADS, pictures=str(pictures)))
    edited = Cell("heads", 0, count=1, strategy="mean", attribute="gender")
    by_chance, tone = replace(edited, kind="random-heads"), replace(edited, attribute="skin-tone")

    def name(cell: Cell = edited, base: Path = base, **changed: Any) -> str:
        asked = replace(study, base=str(base), heads=replace(study.heads, **changed))
        return cell_name(asked, context_of(asked, {}), cell)

    before = {cell: name(cell) for cell in expand(study)}
    assert len(set(before.values())) == len(before)
    assert name(base=other) != name()
    for changed in ({"views": 3}, {"rank": 7}, {"where": {"split": ["held-out"]}}, {"classes": ["circle", "square"]}):
        assert name(**changed) != name(), changed
    for changed in ({"leaning": {"gender": ["circle"]}}, {"attributes": {"gender": None, "skin-tone": None}}):
        assert name(**changed) != name(), changed
        assert name(tone, **changed) == name(tone), "concerns the other attribute"
    for changed in ({"sizes": [7]}, {"edits": ["zero"]}, {"batch_size": 7}, {"attributes": {"gender": "scene"}}):
        assert name(**changed) == name(), changed
    assert name(by_chance, random_sets=9) != name(by_chance)
    assert name(random_sets=9) == name()
    trained = replace(study, train=replace(study.train, steps=7))
    assert cell_name(trained, context_of(trained, {"precision": "16"}), edited) == name(), "nothing is trained"
    with (pictures / "table.csv").open("a", encoding="utf-8") as table:
        table.write("circle-man-dark-0.png,circle,man,dark,again,again,again,training\n")
    assert not {name(cell) for cell in before} & set(before.values())


def test_cells_hold_what_lce_edit_heads_measures(swept: Path, config: Path) -> None:
    study, _ = load_study(swept)
    heads = study.heads
    head_audits.configured(
        config.parent, study.base, edits=heads.edits, size=2, rank=heads.rank, views=2, matched="scene",
    )  # fmt: skip
    assert head_audits.heads(config.parent, "edit") == 0
    [path] = (config.parent / "run").glob("edits/*/result.json")
    audited = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["edit"]: row for row in audited["edits"] if not row["is_first_order"]}
    shared = {"attribute": "gender", "seed": 0, "count": 2}
    for edit in heads.edits:
        found = result_of(swept, kind="heads", strategy=edit, **shared)
        for name in ("heads", "scores", "reduced"):
            assert found[name] == rows[edit][name], (edit, name)
        assert found["differences"].items() <= rows[edit]["differences"].items()
    random = [row for row in audited["random"] if not row["is_first_order"]]
    found = result_of(swept, kind="random-heads", strategy=heads.edits[0], **shared)
    assert found["sets"] == [{name: row[name] for name in ("heads", "values", "reduced")} for row in random]
    unedited = result_of(swept, kind="heads", attribute="gender", seed=0)
    assert unedited["scores"] == audited["before"]["scores"]
    assert unedited["null"] == audited["before"]["null"]


def test_clip_and_first_pass_serve_all_cells_of_an_attribute(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PictureBatches.read
    titles: list[str] = []

    def counted(self: PictureBatches, title: str) -> Any:
        titles.append(title)
        return read(self, title)

    monkeypatch.setattr(PictureBatches, "read", counted)
    study, options = load_study(swept)
    study.experiment = str(tmp_path)
    cache = WorkerCache(study, options)
    for cell in expand(study)[: CELLS // 2 + 1]:
        make(cache, cell)
    assert len(list((tmp_path / "cells").glob("*.json"))) == CELLS // 2 + 1
    assert titles.count("reading heads") == 2, "once an attribute"
    assert len(titles) == 2 + (CELLS // 2 - 1), "and once an edit"
    for path in (tmp_path / "cells").glob("*.json"):
        one, other = (
            json.loads((folder / path.name).read_text(encoding="utf-8")) for folder in (path.parent, swept / "cells")
        )
        assert one | {"seconds": 0} == other | {"seconds": 0}, "as the other worker made it"


def test_a_second_run_makes_nothing_again(swept: Path, config: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (swept / "cells").iterdir()}
    assert len(before) == CELLS
    assert main(["sweep", "--config", str(config)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (swept / "cells").iterdir()} == before


def test_a_plan_says_what_it_takes(swept: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--heads.views", "3"]):
        assert main(["sweep", "--config", str(config), "--dry-run", *options]) == 0
        printed = capsys.readouterr().out
        assert "18 cells" in printed
        assert ("arithmetic" if options else "cells that ran") in printed
