"""The list of cells: each once, named after all that it depends on, impossible ones refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lce.foundations.errors import LceError
from lce.study.cells import Cell, cell_name, expand, settings_for
from lce.study.context import context_of
from lce.study.settings import ALPHAS, DownstreamSettings, EditBlock, StudySettings

SETTINGS = StudySettings(seeds=[0, 1], sparsities=[0.1, 0.3], edits=[])
EVERYTHING = EditBlock(strategies=["linear", "pruning", "mask-switch"], alpha=[0.5, -2], share=[0.1], count=["mask"])


def edits(*blocks: EditBlock) -> list[Cell]:
    return [cell for cell in expand(replace(SETTINGS, seeds=[0], edits=list(blocks))) if cell.kind == "edit"]


def test_every_variant_seed_and_sparsity_is_trained_and_measured() -> None:
    cells = expand(SETTINGS)
    for kind in ("train", "measure"):
        assert sum(cell.kind == kind for cell in cells) == 3 * 2 * 3
    assert sum(cell.kind == "compare" for cell in cells) == 2 * 2
    assert [cell for cell in cells if cell.kind == "overlap"] == [Cell("overlap", sparsity=s) for s in (0.1, 0.3)]


def test_blocks_are_full_products_of_what_makes_sense() -> None:
    found = edits(EVERYTHING)
    assert len(found) == 2 * (4 + 2 * 3), "two directions: 4 mask-based edits; 3 value-based ones at each of two k"
    assert {cell.localization for cell in found if cell.strategy == "mask-switch"} == {"mask"}
    assert {cell.strategy for cell in found if cell.alpha in (0.5, -2)} == {"linear"}
    assert all(cell.k is None for cell in found if cell.localization == "mask")


def test_what_two_blocks_hold_is_one_cell() -> None:
    assert edits(EVERYTHING, EVERYTHING) == edits(EVERYTHING)


def test_each_control_is_drawn_as_often_as_asked() -> None:
    found = edits(EditBlock(controls=["none", "uninformed", "matched"], draws=3, localizations=["mask"]))
    assert len(found) == 2 * (1 + 3 + 3)


def test_an_untrained_variant_is_the_base_and_names_only_its_own_cells() -> None:
    block = EditBlock(pairs=[["neutral", "stereotypical"], ["stereotypical", "anti-stereotypical"]])
    study = replace(SETTINGS, seeds=[0], edits=[block])
    changed = replace(study, untrained=["neutral"])
    context = context_of(study, {})
    for cell in expand(study):
        is_about = "neutral" in (cell.variant, cell.target, cell.reference) or cell.kind == "overlap"
        assert (cell_name(study, context, cell) != cell_name(changed, context, cell)) == is_about, cell
    trained, untrained = (settings_for(one, Cell("train", 0, 0.3, "neutral")).train for one in (study, changed))
    assert (untrained.steps, untrained.learning_rate) == (1, 0.0)
    assert settings_for(changed, Cell("train", 0, 0.3, "stereotypical")).train == trained


def test_tasks_add_the_edited_and_the_unedited_models() -> None:
    block = EditBlock(pairs=[["stereotypical", "anti-stereotypical"]], localizations=["mask"], downstream=True)
    tasks = DownstreamSettings(tasks=["stsb"])
    settings = replace(SETTINGS, seeds=[0], edits=[EditBlock(), block], downstream=tasks)
    found = [cell for cell in expand(settings) if cell.kind == "finetune"]
    assert [(cell.variant, cell.target) for cell in found] == [(None, "stereotypical"), ("stereotypical", None)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": []}, "seeds: expected at least one"),
        ({"seeds": [1, 1]}, "each once"),
        ({"untrained": ["stereotypical"], "variants": ["stereotypical"]}, "untrained: expected some, not all"),
        ({"edits": [EditBlock(pairs=[["stereotypical", "nobody"]])]}, r"edits\[0\].pairs"),
        ({"edits": [EditBlock(sparsities=[0.2])]}, r"edits\[0\].sparsities: \[0.2\]"),
        ({"edits": [EditBlock(), EditBlock(alpha=[0])]}, r"edits\[1\].alpha: 0 changes nothing"),
        ({"edits": [EditBlock(draws=0)]}, "draws: expected a positive"),
        ({"edits": [EditBlock(), EditBlock(controls=[])]}, r"edits\[1\]: asks for no edit: each list needs a value"),
        ({"edits": [EditBlock(strategies=["mask-switch"], localizations=["value"])]}, r"edits\[0\]: asks for no edit"),
        ({"edits": [EditBlock(share=[0.05])]}, "share: 0.1 is shown in the report, but .* only \\[0.05\\]"),
        ({"count": 7, "edits": [EditBlock()]}, "count: 7 is shown in the report"),
        ({"downstream": DownstreamSettings(tasks=["stsb"])}, "no block of edits has downstream: true"),
        (
            {
                "downstream": DownstreamSettings(tasks=["stsb"], seeds=[9]),
                "edits": [EditBlock(downstream=True)],
            },
            r"downstream.seeds: expected some of the study's seeds",
        ),
    ],
)
def test_impossible_studies_are_refused_before_anything_runs(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LceError, match=message):
        expand(replace(SETTINGS, **changed))


def name_of(cell: Cell, settings: StudySettings = SETTINGS) -> str:
    return cell_name(settings, context_of(settings, {"precision": "32-true"}), cell)


def test_names_differ_exactly_where_results_may() -> None:
    cells = expand(replace(SETTINGS, edits=[EVERYTHING]))
    assert len({name_of(cell) for cell in cells}) == len(cells)
    edit, train = (next(cell for cell in cells if cell.kind == kind) for kind in ("edit", "train"))
    stronger = replace(SETTINGS, train=replace(SETTINGS.train, learning_rate=1.0))
    measured = replace(SETTINGS, evaluation=replace(SETTINGS.evaluation, bias_type="race"))
    elsewhere = replace(SETTINGS, experiment="runs/other", address="auto", cells_per_task=1, seeds=[0, 1, 2])
    for cell in (edit, train):
        assert name_of(cell, stronger) != name_of(cell)
        assert name_of(cell, elsewhere) == name_of(cell)
    assert name_of(edit, measured) != name_of(edit)
    assert name_of(train, measured) == name_of(train)


def test_the_default_is_the_papers_study() -> None:
    found = [cell for cell in expand(StudySettings(seeds=[0])) if cell.kind == "edit"]
    assert {cell.alpha for cell in found if cell.target == "neutral"} == set(ALPHAS)
    assert {cell.k for cell in found} == {None, "mask", 0.01, 0.05, 0.1, 0.2, 0.4, 1.0}
    assert {cell.strategy for cell in found} == {"linear", "pruning", "mask-switch"}
    assert {cell.control for cell in found} == {"none", "uninformed", "matched"}


def test_a_cell_alone_has_the_settings_of_one_experiment() -> None:
    settings = settings_for(SETTINGS, Cell("train", 3, 0.0, "neutral"))
    assert (settings.seed, settings.sparsity, settings.variant) == (3, 0.0, "neutral")
    assert settings.experiment == SETTINGS.experiment
