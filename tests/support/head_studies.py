"""A study of attention heads on a CLIP with a planted head and on pictures drawn here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clips
import head_audits
import yaml
from painted import paint

from lce.cli import main
from lce.study.cells import expand
from lce.study.head_study import HeadStudy
from lce.study.run_cell import make
from lce.study.settings import StudySettings
from lce.study.sweep import groups_of
from lce.study.worker_cache import WorkerCache

HEADS = HeadStudy(attributes={"gender": "scene", "skin-tone": None}, sizes=[1, 2], edits=["mean", "projection"])
SETTINGS = StudySettings(seeds=[0, 1], variants=[], edits=[], heads=HEADS)
CELLS = 2 * (1 + 2 * 2 * 2)
"""Of one seed: the unedited model, and each size and edit of the selected heads and of random ones, by attribute."""


def configured(folder: Path) -> Path:
    """The configuration of a study of one seed in ``folder``."""
    quick = {name: head_audits.QUICK[name] for name in ("templates", "classes", "texts", "random_sets", "device")}
    heads = quick | {name: getattr(HEADS, name) for name in ("attributes", "sizes", "edits")}
    settings = {
        "experiment": str(folder / "study"),
        "base": clips.planted(folder).name,
        "seeds": [0],
        "variants": [],
        "edits": [],
        "heads": heads | {"rank": quick["texts"], "pictures": str(paint(folder / "pictures")), "views": 2},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def finished(config: Path) -> Path:
    """The folder of the finished study, made as a worker makes it; Ray, whose start takes longer, is not needed."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    study = StudySettings(**settings | {"heads": HeadStudy(**settings["heads"])})
    (config.parent / "study/cells").mkdir(parents=True)
    cache = WorkerCache(study, {})
    for group in groups_of(study, expand(study)):
        for cell in group.cells:
            make(cache, cell)
    assert main(["sweep", "--config", str(config)]) == 0
    return config.parent / "study"


def results(run: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every cell and its result."""
    for path in (run / "cells").glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        yield found.pop("cell"), found


def result_of(run: Path, **cell: Any) -> dict[str, Any]:
    """The result of one cell, by all of its fields that apply."""
    [found] = [result for known, result in results(run) if known == cell]
    return found
