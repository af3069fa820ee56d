"""Studies side by side: what they differ in, what each found, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import BASE
from test_claims import World, results

from lce.cli import main
from lce.config import OptimisationSettings
from lce.models.layers import prunable_parameters
from lce.models.loading import load_language_model
from lce.storage.in_memory import load_subnetwork
from lce.study.overlaps import MOVED
from lce.study.report.comparison import closed, differences, figure, measures
from lce.study.report.results import load_results
from lce.study.settings import EditBlock, StudySettings

BLOCKS = [EditBlock(alpha=[1.0, 2.0]), EditBlock(alpha=[1.0, 2.0], controls=["uninformed"], draws=2)]


def test_what_is_measured_in_the_papers_world() -> None:
    found = measures(results(World(), edits=BLOCKS))
    assert found["gap in WEAT 8", "two variants, dense"].value == pytest.approx(1.7)
    assert found["weights in which masks differ [%]", "two variants"].value == pytest.approx(0.4)
    assert found["Jaccard similarity of masks", "two seeds"].value == pytest.approx(0.99)
    assert found["perplexity", "mean of the variants"].value == pytest.approx(6 * 1.02)


def test_the_share_of_the_gap_that_is_closed() -> None:
    """In this world an edit moves by 0.25 α times the difference in leaning, 2, both ways; of a gap of 1.7."""
    found = closed(results(World(), edits=BLOCKS))
    for alpha in (1, 2):
        informed = found[f"closed of the gap in WEAT 8 [%], α = {alpha}", "mask-based"]
        assert informed.to_numpy() == pytest.approx(100 * 0.5 * alpha / 1.7)
        random = found[f"closed of the gap in WEAT 8 [%], α = {alpha}", "random, as many as value-based"]
        assert random.to_numpy() == pytest.approx(0.05 * informed.to_numpy())


def test_no_share_of_a_gap_that_is_not_there() -> None:
    for crows_gap, is_told in ((5.0, True), (0.0, False), (-1.0, False)):
        told = {what for what, _ in measures(results(World(crows_gap=crows_gap), edits=BLOCKS))}
        assert any(what.startswith("closed of the gap in CrowS-Pairs") for what in told) is is_told


def test_settings_that_differ_and_nothing_else() -> None:
    first = StudySettings(experiment="a", train=OptimisationSettings(steps=10))
    second = replace(first, experiment="b", train=OptimisationSettings(steps=40, learning_rate=1e-3), edits=BLOCKS)
    precise = {"trainer": {"precision": "64-true"}}
    found = differences({"a": asdict(first), "b": asdict(second) | precise})
    assert found == {
        "train.steps": {"a": 10, "b": 40},
        "train.learning_rate": {"a": 1e-5, "b": 1e-3},
        "trainer.precision": {"a": None, "b": "64-true"},
    }


def test_the_figure_is_over_the_first_number_that_differs() -> None:
    found = {name: measures(results(World(move=move), edits=BLOCKS)) for name, move in (("a", 0.1), ("b", 0.2))}
    drawn = figure(found, {"base": {"a": "x", "b": "y"}, "train.steps": {"a": 40, "b": 10}})
    assert drawn is not None
    titled = {axes.get_title().replace("\n", " "): axes for axes in drawn.axes}
    assert set(titled) >= {what for what, _ in found["a"]}
    [line, *_] = titled["closed of the gap in WEAT 8 [%], α = 2"].get_lines()
    assert list(line.get_xdata()) == [10, 40]
    assert line.axes.get_xscale() == "log"
    from_zero = figure(found, {"train.warmup_steps": {"a": 0, "b": 10}})
    assert from_zero is not None
    assert from_zero.axes[0].get_xscale() == "linear"
    assert figure(found, {"base": {"a": "x", "b": "y"}}) is None


def test_distances_between_seeds_variants_and_from_the_base(swept: Path) -> None:
    found = load_results(swept)
    [overlap] = [result for cell, result in found.of("overlap").items() if cell.sparsity == 0.4]
    base = prunable_parameters(load_language_model(found.study.base)[0])

    def flat(variant: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        model = load_subnetwork(swept / f"seed-{seed}/{variant}/sparsity-40", base)
        weights = np.concatenate([model.weights[name].numpy().ravel() for name in base])
        kept = np.concatenate([model.mask.kept[name].numpy().ravel() for name in base])
        return weights, kept

    first, kept = flat("stereotypical", 0)
    second, other = flat("stereotypical", 1)[0], flat("anti-stereotypical", 0)[0]
    seed_1, anti = flat("stereotypical", 1)[1], flat("anti-stereotypical", 0)[1]
    anti_1 = flat("anti-stereotypical", 1)[1]

    def jaccard(one: np.ndarray, two: np.ndarray) -> float:
        return pytest.approx((one & two).sum() / (one | two).sum())

    assert overlap["masks"]["stereotypical"] == [jaccard(kept, seed_1)]
    assert overlap["variants"]["stereotypical, anti-stereotypical"] == [jaccard(kept, anti), jaccard(seed_1, anti_1)]
    assert overlap["selections"]["mask"]["jaccard"] == [jaccard(kept ^ anti, seed_1 ^ anti_1)]
    distances = overlap["distances"]
    assert distances["stereotypical"] == [pytest.approx(np.linalg.norm(first - second), rel=1e-4)]
    assert distances["stereotypical, anti-stereotypical"][0] == pytest.approx(np.linalg.norm(first - other), rel=1e-4)
    start = np.concatenate([base[name].detach().numpy().ravel() for name in base]) * kept
    moved = np.linalg.norm(first - start) / np.linalg.norm(start)
    assert distances[MOVED][0] == pytest.approx(moved, rel=1e-4)
    assert len(distances[MOVED]) == 4


def test_two_studies_by_the_command_line(swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(swept, tmp_path / "other")
    content = (other / "config.yaml").read_text(encoding="utf-8")
    (other / "config.yaml").write_text(content.replace("\nshare: 0.1\n", "\nshare: 0.2\n"), encoding="utf-8")
    out = tmp_path / "compared"
    assert main(["report", str(swept), str(other), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "comparison.md")
    page = (out / "comparison.md").read_text(encoding="utf-8")
    assert "| `share` | 0.1 | 0.2 |" in page
    assert page.count("| C9 |") == 2
    unfinished = load_results(other).missing
    assert "cells have no result yet" in unfinished, "the size that is shown has another name"
    numbers = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert set(numbers["claims"]) == {"study", "other"}
    assert (out / "comparison.svg").exists()
    assert numbers["unfinished"] == {"other": unfinished}
    assert f"other: {unfinished}" in page
    assert main(["report", str(swept), str(other), "--out", str(out)]) == 0, "its own folder is written again"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{swept}", "{swept}", "--out", "{out}"], "must have different names"),
        (["{swept}", "{base}"], "--out: several studies that are compared need it"),
        (["{swept}", "--out", "{out}"], "one study's report has a place of its own"),
        (["{swept}", "{base}", "--out", "{out}"], "no such file"),
        (["{swept}", "{swept}2", "--out", "{base}"], "holds no comparison of lce"),
        (["{swept}", "{swept}2", "--out", "{base}/config.json"], "is a file; a comparison is written to a folder"),
    ],
)
def test_what_cannot_be_compared(
    arguments: list[str], message: str, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"swept": swept, "base": BASE, "out": tmp_path / "out"}
    assert main(["report", *(one.format(**places) for one in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
