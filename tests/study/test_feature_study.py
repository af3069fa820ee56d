"""A study of features: its cells, their results on a model with planted bias, and the report about them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import planted
import pytest
import torch
import yaml
from conftest import ROOT

from lce.cli import main
from lce.evaluation.site_edits import HELD_OUT, Measured, SiteEdits, trials
from lce.foundations.errors import LceError
from lce.localize.feature_settings import FeatureSettings
from lce.models.autoencoder_files import save_autoencoder
from lce.study.cells import Cell, cell_name, expand
from lce.study.context import context_of
from lce.study.feature_study import FeatureStudy
from lce.study.report.feature_edits import edits_of, means
from lce.study.report.report import sections
from lce.study.report.results import load_results, load_study
from lce.study.settings import StudySettings
from lce.study.study_checks import check_study
from lce.study.worker_cache import WorkerCache

FEATURES = FeatureStudy(
    rules=["counts", "attribution"], count=[1, 2], scale=[0.0], directions=["occupations"], alpha=[0.5, 1.0]
)
SETTINGS = StudySettings(seeds=[0, 1], variants=[], edits=[], features=FEATURES)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, sentences_file: Path, downloads: Path) -> Path:
    folder = tmp_path_factory.mktemp("features")
    model, sae = planted.saved(folder)
    text = folder / "text.txt"
    text.write_text("The nurse said that she\nThe plumber told me that he\nWe met the cook before\n", encoding="utf-8")
    features = {name: getattr(FEATURES, name) for name in ("rules", "count", "scale", "directions", "alpha")}
    settings = {
        "experiment": str(folder / "study"),
        "base": str(model),
        "seeds": [0, 1],
        "variants": [],
        "edits": [],
        "features": features | {"sae": str(sae)},
        "data": {
            "folder": str(folder / "data"),
            "downloads": str(downloads),
            "specification": str(ROOT / "configs/bias/gender.yaml"),
            "corpus": {"source": "files", "files": [str(sentences_file)]},
        },
        "evaluation": {"metrics": ["occupation_pronouns", "perplexity"], "text": str(text)},
        "trainer": {"accelerator": "cpu"},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def swept(config: Path) -> Path:
    """The folder of the finished study."""
    assert main(["sweep", "--config", str(config)]) == 0
    return config.parent / "study"


def results(run: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in (run / "cells").glob("*.json")]


def test_every_rule_number_scale_and_control_is_a_cell_and_nothing_is_trained() -> None:
    cells = expand(SETTINGS)
    assert {cell.kind for cell in cells} == {"features"}
    assert cells.count(Cell("features")) == 1, "the unedited model"
    found = Counter((cell.localization, cell.count, cell.alpha, cell.control) for cell in cells if cell.seed == 1)
    sizes = [("counts", None), ("attribution", 1), ("attribution", 2)]
    wanted = [(*size, 0.0, control) for size in sizes for control in ("none", "uninformed", "matched")]
    wanted += [("direction occupations", None, alpha, "none") for alpha in (0.5, 1.0)]
    assert found == Counter(wanted)
    drawn = expand(replace(SETTINGS, features=replace(FEATURES, draws=3)))
    assert len(drawn) - len(cells) == 2 * 3 * 2 * 2, "seeds × selections × controls × further draws"
    controls = expand(replace(SETTINGS, features=replace(FEATURES, controls=["matched"])))
    assert {cell.control for cell in controls} == {None, "matched"}


def test_features_stand_beside_trained_variants_and_change_none_of_their_cells() -> None:
    trained = StudySettings(seeds=[0, 1], edits=[], features=FeatureStudy())
    assert not any(cell.kind == "features" for cell in expand(trained))
    both = expand(replace(trained, features=FEATURES))
    assert [cell for cell in both if cell.kind != "features"] == expand(trained)
    assert [cell for cell in both if cell.kind == "features"] == expand(SETTINGS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scale": [0.3, 1.0]}, r"features\.scale: expected other numbers than 1, which changes nothing"),
        ({"alpha": [0.0]}, r"features\.alpha: expected other numbers than 0"),
        ({"alpha": []}, r"features\.alpha: expected at least one strength"),
        ({"count": []}, r"features\.count: expected at least one number"),
        ({"count": [5, 0]}, r"features\.count: expected positive numbers of features, got 0"),
        ({"count": [5, 5]}, r"features\.count: expected each value once, got \[5, 5\]"),
        ({"controls": []}, r"features\.controls: expected at least one"),
        ({"draws": 0}, r"features\.draws: expected a positive number"),
        ({"contexts": ["The nurse"]}, r"features\.contexts: expected texts with \{job\} in them, got 'The nurse'"),
    ],
)
def test_impossible_settings_are_one_line(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LceError, match=message) as caught:
        check_study(replace(SETTINGS, features=replace(FEATURES, **changed)))
    assert "\n" not in str(caught.value)
    check_study(replace(SETTINGS, features=FeatureStudy(directions=["pronouns"], count=[])))


def test_what_a_study_of_features_needs_beside_them(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    race = ["--evaluation.bias_type", "race", "--evaluation.metrics"]
    for options, message in (
        (["--evaluation.metrics", "[perplexity]"], "evaluation.metrics: expected occupation_pronouns and perplexity"),
        ([*race, "[occupation_pronouns, perplexity, stereoset]"], "evaluation.bias_type: expected gender or all"),
        (["--features.rules", "[]", "--features.directions", "[]"], "variants: expected at least one value"),
        (["--features.scale", "[a]"], "features.scale: expected"),
        (["--edits", "[{alpha: [2]}]"], "edits: expected [] in a study without variants, got 1"),
        (["--features.sae", "nowhere"], "nowhere: no such folder"),
    ):
        assert main(["sweep", "--config", str(config), *options, "--dry-run"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line


def test_names_differ_exactly_where_results_may(config: Path, tmp_path: Path) -> None:
    sae = config.parent / "sae"
    study = replace(SETTINGS, base=str(config.parent / "model"), features=replace(FEATURES, sae=str(sae)))
    edited = expand(study)[1]

    def name(cell: Cell = edited, **changed: Any) -> str:
        other = replace(study, features=replace(study.features, **changed))
        return cell_name(other, context_of(other, {}), cell)

    planted_one = planted.autoencoder()
    save_autoencoder(replace(planted_one, decoder_bias=planted_one.decoder_bias + 1), tmp_path / "weights")
    save_autoencoder(replace(planted_one, normalisation="layer_norm"), tmp_path / "normalised")
    shutil.copytree(sae, tmp_path / "copy")
    for changed in (
        {"contexts": ["{job}"]}, {"tokens": "last"}, {"site": "layers.1"}, {"sae": str(tmp_path / "weights")},
        {"sae": str(tmp_path / "normalised")},
    ):  # fmt: skip
        assert name(**changed) != name(), changed
        assert name(Cell("features"), **changed) == name(Cell("features")), "the unedited model has no features"
    for changed in ({"count": [7]}, {"draws": 9}, {"scale": [0.1]}, {"sae": str(tmp_path / "copy")}):
        assert name(**changed) == name(), changed
    other = planted.model()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    other.save_pretrained(tmp_path / "other")
    planted.tokenizer().save_pretrained(tmp_path / "other")
    for cell in (edited, Cell("features")):
        assert name(cell, model=str(tmp_path / "other")) != name(cell), "another model's features"
    measured = replace(study, evaluation=replace(study.evaluation, limit=4))
    for cell in (edited, Cell("features")):
        assert cell_name(measured, context_of(measured, {}), cell) != name(cell)
    assert len({name(cell) for cell in expand(study)}) == len(expand(study))
    assert not any(" " in name(cell) for cell in expand(study))


def test_cells_hold_what_lce_edit_features_measures(swept: Path) -> None:
    study, trainer_options = load_study(swept)
    cache = WorkerCache(study, trainer_options)
    about = FeatureSettings(
        rule="attribution", count=2, sae=study.features.sae, scale=[0.0], compare=["counts"],
        directions=["occupations"], random_baselines=1, seed=1,
    )  # fmt: skip
    model, tokenizer, kind, evaluator = cache.of_features
    measured = Measured(evaluator, SiteEdits(about, model, tokenizer, kind))
    rows = {trial.name: measured.row(trial)[0] for trial in trials(measured.edits)}
    shared = {"seed": 1, "alpha": 0.0}
    two = shared | {"localization": "attribution", "count": 2}
    for name, wanted in {
        "counts": shared | {"localization": "counts", "control": "none"},
        "attribution": two | {"control": "none"},
        "random 1": two | {"control": "uninformed"},
        "matched 1": two | {"control": "matched"},
        "direction occupations": {"localization": "direction occupations", "alpha": 1.0, "seed": 1},
    }.items():
        [found] = [result for result in results(swept) if result["cell"].items() >= wanted.items()]
        assert found["scores"] == json.loads(json.dumps(rows[name]["scores"])), name
        assert found["closed"] == json.loads(json.dumps(rows[name]["closed"])), name
        ratio = found["scores"]["perplexity"]["value"] / measured.before["perplexity"].compute().item()
        assert found["costs"]["perplexity"]["value"] == pytest.approx(ratio - 1, rel=1e-4, abs=1e-6)
        assert found["selected"] == (1 if name.startswith("direction") else 2)


def test_what_is_planted_is_closed_by_features_and_directions_and_not_by_chance(swept: Path) -> None:
    frame = means(edits_of(load_results(swept)))
    closed = frame.set_index(["rule", "count", "strength", "control"])["closed"]
    for way in (("counts", float("nan"), 0.0), ("attribution", 2.0, 0.0), ("direction occupations", float("nan"), 1.0)):
        assert closed[(*way, "none")] == pytest.approx(1, abs=1e-4)
    assert 0.1 < closed[("attribution", 1.0, 0.0, "none")] < 0.9, "one of two planted features"
    assert closed[closed.index.get_level_values("control") != "none"].abs().max() < 0.25
    assert set(frame["results"]) == {2}, "seeds"
    assert (frame["closed_low"] <= frame["closed"]).all()


def test_a_second_run_makes_nothing_again(swept: Path, config: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (swept / "cells").iterdir()}
    assert len(before) == len(expand(SETTINGS)) == 23
    assert main(["sweep", "--config", str(config)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (swept / "cells").iterdir()} == before


def test_the_report_has_figures_and_a_table_and_nothing_of_variants(
    swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise LceError("a report needs no autoencoder")

    monkeypatch.setattr("lce.models.autoencoder_files.load_autoencoder", gone)
    assert main(["report", str(swept)]) == 0
    [section] = sections(load_results(swept))
    assert all(len(row) == len(section.headings) for row in section.rows)
    assert len(section.rows) == 1 + 3 + 2, "unedited, three selections, two strengths of a direction"
    report = swept / "report"
    assert {path.stem for path in (report / "figures").iterdir()} == {"features", "features-number"}
    page, tables = ((report / name).read_text(encoding="utf-8") for name in ("report.html", "tables.md"))
    assert page.count("<svg") == 2
    curve = (report / "figures/features.svg").read_text(encoding="utf-8")
    for kind in ("by counts", "by attribution", "direction occupations", "random features", "matched features"):
        assert kind in curve, "in the legend"
    for text in (page, tables):
        assert "paper's claims" not in text
        assert "Downstream" not in text
    [row] = [line for line in tables.splitlines() if line.startswith("| by counts |")]
    assert "| 2 | s = 0 | 40 × 2 | 0.00 (" in row
    assert "| 100% (100% to 100%) |" in row
    assert json.loads((report / "claims.json").read_text(encoding="utf-8")) == []
    rows = pd.read_csv(report / "features.csv")
    assert len(rows) == 22
    assert set(rows["n"]) == {40}
    gap = next(r["scores"][HELD_OUT]["value"] for r in results(swept) if r["cell"] == {"kind": "features"})
    assert f"| unedited |  |  | 40 × 1 | {gap:.2f} (" in tables


@pytest.mark.parametrize("kept", ["features-seed0-attribution*", "features-seed0-direction*"])
def test_an_unfinished_study_is_reported(swept: Path, tmp_path: Path, kept: str) -> None:
    """Without the unedited model, and without some kinds of edits."""
    (tmp_path / "part/cells").mkdir(parents=True)
    for path in [swept / "config.yaml", swept / "base.json", *(swept / "cells").glob(kept)]:
        shutil.copy(path, tmp_path / "part" / path.relative_to(swept))
    assert main(["report", str(tmp_path / "part")]) == 0
    page = (tmp_path / "part/report/report.html").read_text(encoding="utf-8")
    assert "of 23 cells have no result yet" in page
    assert page.count("<svg") == (2 if "attribution" in kept else 1)
