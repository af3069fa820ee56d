"""The rules: in a world made as the paper says, every claim holds; with one thing changed, its claim does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lce.study.cells import Cell, expand
from lce.study.report.aggregates import crossing, over_k
from lce.study.report.claims import judge
from lce.study.report.plots import _heat, figures
from lce.study.report.report import sections
from lce.study.report.results import LEANING, Results
from lce.study.settings import ANTI_STEREOTYPICAL, NEUTRAL, STEREOTYPICAL, DownstreamSettings, EditBlock, StudySettings

WEAT = {STEREOTYPICAL: 0.9, NEUTRAL: 0.5, ANTI_STEREOTYPICAL: -0.8}


@dataclass(frozen=True)
class World:
    """What is true in it; the defaults are the paper's."""

    crows_gap: float = 5.0
    ticket: float = 1.02
    jaccard: float = 0.99
    gap_kept: float = 1.0
    differing: float = 0.004
    last_layer: int = 50
    move: float = 0.25
    by_control: float = 0.05
    curvature: float = 0.0
    small_k: float = 1.0
    cost: float = 0.005
    value_pruning: float = 1.6
    noise_far: float = 3.0
    mask_grows: float = 1.0
    neutral_bias: float = WEAT[NEUTRAL]
    lost: float = 1.0
    lm_lost: float = 0.1

    def unedited(self, variant: str, seed: int, sparsity: float) -> dict[str, float]:
        kept = self.gap_kept if sparsity else 1.0
        weat = self.neutral_bias if variant == NEUTRAL else kept * WEAT[variant]
        leaning = LEANING[variant]
        return {
            "weat8": weat + 0.01 * seed,
            "stereoset_ss": 60 + kept * leaning + 0.01 * seed,
            "crows_pairs": 55 + kept * self.crows_gap / 2 * leaning + 0.01 * seed,
            "stereoset_lm": 85.0,
            "perplexity": 6.0 + 0.01 * seed,
        }

    def edited(self, cell: Cell) -> dict[str, float]:
        seed, sparsity = cell.seed or 0, cell.sparsity or 0
        scores = self.unedited(str(cell.target), seed, sparsity)
        alpha = {"pruning": 1.0, "mask-switch": 1.0}.get(str(cell.strategy)) or (cell.alpha or 0.0)
        size = self.move * alpha - self.curvature * alpha**3
        size *= self.by_control if cell.control != "none" else 1.0
        growth = sparsity / 0.3
        size *= growth**self.mask_grows if cell.localization == "mask" else 1 / growth
        size *= self.small_k if isinstance(cell.k, float) and cell.k < 1 else 1.0
        intended = size * (LEANING[str(cell.reference)] - LEANING[str(cell.target)])
        scores["stereoset_lm"] -= self.lm_lost
        far = self.noise_far if abs(alpha) >= 5 else 1.0
        scores["weat8"] += intended
        scores["stereoset_ss"] += intended + far * seed
        scores["crows_pairs"] += intended + far * seed
        scores["perplexity"] *= 1 + (self.value_pruning if is_value_pruning(cell) else self.cost * abs(alpha))
        return scores

    def result(self, cell: Cell) -> dict[str, Any]:
        if cell.kind == "train":
            ratio = self.ticket if cell.sparsity else 1.0
            return {"perplexity": 6 * ratio, "dense_perplexity": 6.0, "variant": cell.variant}
        if cell.kind == "compare":
            places = [(layer, part) for layer in (0, 1) for part in ("attention.output.dense", "output.dense")]
            counts = [(self.last_layer if layer else 20) + 5 * part.startswith("att") for layer, part in places]
            cells = [[*place, count, 1000] for place, count in zip(places, counts, strict=True)]
            return {"selections": {name: {"share": self.differing, "cells": cells} for name in ("mask", "value")}}
        if cell.kind == "overlap":
            return {"masks": {STEREOTYPICAL: [self.jaccard]}, "variants": {}, "selections": {}}
        if cell.kind == "finetune":
            lost = 0.0 if cell.variant else 20.0 if is_value_pruning(cell) else self.lost
            return {"scores": {"dev_spearman": {"value": 80.0 - lost}}}
        scores = (
            self.unedited(str(cell.variant), cell.seed or 0, cell.sparsity or 0)
            if cell.kind == "measure"
            else self.edited(cell)
        )
        return {
            "scores": {name: {"value": v, "p_value": p_value(v)} for name, v in scores.items()},
            "selected_share": 0.1,
        }


def is_value_pruning(cell: Cell) -> bool:
    return cell.strategy == "pruning" and cell.localization == "value"


def p_value(effect: float) -> float:
    """One-sided, of an effect whose null interval is −0.3 to 0.3."""
    return 0.5 if abs(effect) < 0.3 else 0.01 if effect > 0 else 0.99


def results(world: World, **changed: Any) -> Results:
    tasks = [] if "edits" in changed else ["stsb"]
    study = replace(StudySettings(downstream=DownstreamSettings(tasks=tasks)), **changed)
    cells = expand(study)
    return Results(Path("nowhere"), study, {cell: world.result(cell) for cell in cells}, len(cells))


def test_every_claim_holds_in_the_papers_world() -> None:
    assert {c.number: c.holds for c in judge(results(World()))} == {f"C{i}": True for i in range(1, 16)}


@pytest.mark.parametrize(
    ("number", "changed"),
    [
        ("C1", {"crows_gap": -1.0}),
        ("C2", {"ticket": 1.06}),
        ("C3", {"jaccard": 0.97}),
        ("C4", {"gap_kept": 0.4}),
        ("C5", {"differing": 0.006}),
        ("C6", {"last_layer": 15}),
        ("C7", {"move": -0.25}),
        ("C8", {"by_control": 0.3}),
        ("C9", {"curvature": 0.03}),
        ("C9", {"move": 0.1}),
        ("C10", {"small_k": 0.8}),
        ("C11", {"cost": 0.03}),
        ("C11", {"value_pruning": 0.001}),
        ("C12", {"noise_far": 0.5}),
        ("C12", {"cost": -0.005}),
        ("C11", {"lm_lost": 3.0}),
        ("C13", {"mask_grows": -1.0}),
        ("C14", {"move": 0.02}),
        ("C15", {"lost": 2.5}),
    ],
)
def test_a_claim_fails_where_its_rule_says(number: str, changed: dict[str, float]) -> None:
    found = {claim.number: claim.holds for claim in judge(results(replace(World(), **changed)))}
    assert found[number] is False


def test_more_draws_of_a_control_do_not_change_what_a_single_one_moves() -> None:
    """Controls of the same size, of which every other one moves the other way, so that their mean is nothing."""
    block = EditBlock(alpha=[1.0, 2.0])
    whole = results(World(by_control=0.3), edits=[block, replace(block, controls=["uninformed"], draws=2)])
    unedited = {(cell.seed, cell.variant, cell.sparsity): r["scores"] for cell, r in whole.of("measure").items()}
    for cell, result in whole.of("edit").items():
        if cell.draw == 1:
            before = unedited[cell.seed, cell.target, cell.sparsity]["weat8"]["value"]
            score = result["scores"]["weat8"]
            score["value"] = 2 * before - score["value"]
    [claim] = [claim for claim in judge(whole) if claim.number == "C8"]
    assert claim.holds is False
    assert "30% of the informed edits'" in claim.measured


def test_one_seed_is_too_few_for_a_claim_about_seeds() -> None:
    verdicts = {claim.number: claim.holds for claim in judge(results(World(), seeds=[0]))}
    assert (verdicts["C1"], verdicts["C8"]) == (None, None)


def test_what_a_study_did_not_go_as_far_as_to_see_is_not_judged() -> None:
    near = results(World(), edits=[EditBlock(alpha=[0.5, 1.0, 1.5, 2.0, -2.0])], sparsities=[0.3])
    verdicts = {claim.number: claim for claim in judge(near)}
    assert verdicts["C9"].holds is True, "WEAT is zero between α = 1.5 and 2"
    weak = results(World(move=0.1), edits=[EditBlock(alpha=[0.5, 1.0, 1.5, 2.0, -2.0])], sparsities=[0.3])
    verdicts = {claim.number: claim for claim in judge(weak)}
    assert verdicts["C9"].holds is None
    assert "α up to 2 only" in verdicts["C9"].measured
    assert verdicts["C2"].holds is None
    assert "30% is the largest sparsity here" in verdicts["C2"].measured


def test_a_variant_that_is_not_trained_says_nothing_of_training() -> None:
    whole = results(World(), untrained=[NEUTRAL])
    for cell, result in whole.cells.items():
        if cell.kind == "train" and cell.variant == NEUTRAL and cell.sparsity:
            result["perplexity"] *= 2
        if cell.kind == "overlap":
            result["masks"] |= {NEUTRAL: [1.0]}
    claims = {claim.number: claim for claim in judge(whole)}
    assert claims["C2"].holds is True
    assert "neutral" not in claims["C2"].measured
    assert "to 0.99" in claims["C3"].measured


def test_a_score_that_is_none_any_more_is_lost() -> None:
    whole = results(World())
    [first, *_] = (
        result for cell, result in whole.of("finetune").items() if cell.target and not is_value_pruning(cell)
    )
    first["scores"]["dev_spearman"]["value"] = None
    [claim] = [claim for claim in judge(whole) if claim.number == "C15"]
    assert claim.holds is False


def test_the_maps_are_of_one_model_whatever_the_number_of_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lce.study.report.plots.heat_map", lambda cells, title: cells)
    one, four = (_heat(results(World(), seeds=list(range(seeds))), "mask") for seeds in (1, 4))
    assert one == four


def test_edits_towards_a_neutral_model_are_not_pooled_with_the_papers() -> None:
    mixed = EditBlock(pairs=[[STEREOTYPICAL, ANTI_STEREOTYPICAL], [STEREOTYPICAL, NEUTRAL]], share=[0.1, 0.5])
    alone = replace(mixed, pairs=[[STEREOTYPICAL, ANTI_STEREOTYPICAL]])
    found = [over_k(results(World(), edits=[block]), "weat8", 2.0)["mean"].tolist() for block in (mixed, alone)]
    assert found[0] == found[1] != []


def test_few_seeds_are_said_to_be_few() -> None:
    for seeds, is_few in (([0, 1], True), ([0, 1, 2, 3], False)):
        [costs] = [part for part in sections(results(World(), seeds=seeds)) if part.title.startswith("What it costs")]
        assert ("With so few seeds, none can be." in costs.text) is is_few


def test_a_neutral_model_without_bias_cannot_show_that_an_edit_removes_it() -> None:
    [claim] = [claim for claim in judge(results(World(neutral_bias=0.1))) if claim.number == "C14"]
    assert claim.holds is None
    assert "before any edit" in claim.measured


def test_what_was_not_run_is_not_judged() -> None:
    bare = results(World(), edits=[], seeds=[0])
    verdicts = {claim.number: claim.holds for claim in judge(bare)}
    assert {number for number, holds in verdicts.items() if holds is None} == {
        "C1", "C3", *(f"C{i}" for i in range(7, 16)),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(30))
def test_a_study_under_way_can_be_judged_told_and_drawn(seed: int) -> None:
    """Whatever cells are there, and whatever was measured in them."""
    random = Random(seed)
    whole = results(World())
    share, left_out = random.choice([0.002, 0.02, 0.2, 0.8]), random.choice(["", "weat8", "crows_pairs", "perplexity"])
    kinds = random.sample(["train", "measure", "compare", "edit", "overlap", "finetune"], 3)
    cells = {cell: r for cell, r in whole.cells.items() if cell.kind in kinds or random.random() < share}
    for result in cells.values():
        result.get("scores", {}).pop(left_out, None)
    part = replace(whole, cells=cells)
    assert len(judge(part)) == 15
    told = sections(part)
    assert all(len(row) == len(section.headings) for section in told for row in section.rows)
    assert not any("nan" in cell for section in told for row in section.rows for cell in row)
    for figure in figures(part).values():
        figure.clear()


def test_crossing_is_interpolated() -> None:
    assert crossing([-2, 0, 1, 2], [-1, 3, 1, -1]) == pytest.approx(1.5)
    assert crossing([0, 1, 2], [3, 2, 1]) is None
