"""The small vision-language model whose projector is shipped, on the real pictures: what it holds inside of gender."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from vlms import shipped_mini

from lce.data.pictures.attributes import load_attribute
from lce.data.pictures.table import TABLE
from lce.evaluation.colour_shifts import colour_shifts
from lce.evaluation.direction_audit import DirectionAudit
from lce.foundations.locks import held
from lce.localize.direction_settings import DirectionSettings
from lce.metrics.separation import separation
from lce.models.assembled import MINI

PROJECTOR = ROOT / "checkpoints" / MINI


@pytest.fixture(scope="module")
def audit(downloads: Path, drawn: Path, shared: Path) -> DirectionAudit:
    """That of configs/lals.yaml in the layer that it chooses, with fewer pictures and colours; it reads texts once."""
    folder = shared / "lals"
    with held(shared / "lals.lock", "another process opens it", patience=-1):
        folder.mkdir(exist_ok=True)
        found = open_audit(folder, downloads, drawn)
        assert found.units.reference
    return found


def open_audit(folder: Path, downloads: Path, drawn: Path) -> DirectionAudit:
    whole = shipped_mini(downloads, folder)
    asked = yaml.safe_load((ROOT / "configs/lals.yaml").read_text(encoding="utf-8"))
    known = {"pictures": str(drawn), "downloads": str(downloads), "experiment": str(folder)}
    known["where"] = asked["where"] | {"skin_tone": ["light", "dark"]}
    known["chosen_by"] = asked["chosen_by"] | {"skin_tone": ["medium"]}
    known["colours"] = {name: asked["colours"][name] for name in ("pink", "blue")}
    settings = DirectionSettings(**asked | known, layers=[16])
    return DirectionAudit(settings, whole, load_attribute("gender"), drawn / TABLE)


def test_it_tells_women_from_men_inside(audit: DirectionAudit) -> None:
    scores = audit.leaning_at(audit.shown.openers, audit.layer)
    assert separation(scores, audit.shown.groups) >= 0.8


def test_the_edit_moves_its_answers_and_random_directions_do_not(audit: DirectionAudit) -> None:
    opened = audit.shown.among(audit.ambiguous).openers
    random = [audit.edit(audit.layer, vector=vector) for vector in islice(audit.random_vectors(), 5)]
    before = audit.odds(opened)
    found = audit.odds_under([audit.edit(audit.layer), *random], opened)
    moved = [abs(float(np.mean(odds - before))) for odds in found]
    assert moved[0] > 3 * max(moved[1:])


def test_blue_leans_towards_men_against_pink(audit: DirectionAudit) -> None:
    pink, blue = colour_shifts(audit)
    assert (pink["colour"], blue["colour"]) == ("pink", "blue")
    assert pink["n"] == blue["n"] > 15
    low, _ = blue["leaning_against_first"]["interval"]
    assert low > 0
    assert blue["odds_against_first"]["value"] > 0
