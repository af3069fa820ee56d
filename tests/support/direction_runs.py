"""Audits of directions in the planted model, on pictures drawn here, from the command line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import planted_vlm
import yaml
from painted import GROUPS, SHAPES, paint, painted, write_table
from PIL import Image

from lce.cli import main

QUICK: dict[str, Any] = {
    "where": {"split": ["held-out"], "kind": ["occupation", "person"]},
    "chosen_by": {"split": ["training"], "kind": ["occupation", "person"]},
    "without_people": {"kind": ["other"]}, "matched": "scene", "question": "What?",
    "choice": {"question": "Who?", "start": "It is", "words": [["she"], ["he"]]},
    "caption": "a {}", "k": 8, "top": 0.3, "shuffles": 5, "random_directions": 20, "batch_size": 24, "device": "cpu",
}  # fmt: skip
GREY = (140, 140, 140)
"""The colour of shapes of neither gender."""


def shown(folder: Path) -> Path:
    """Red and blue shapes, grey ones, and white pictures of nothing."""
    paint(folder, 8)
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    for number, shape in enumerate([*SHAPES, *SHAPES]):
        name, pixels = f"grey-{shape}-{number}.png", np.array(painted(shape, "woman", "light", number))
        pixels[(pixels == GROUPS["woman"]).all(2)] = GREY
        Image.fromarray(pixels).save(folder / name)
        about = {"class": shape, "gender": "", "skin_tone": "light", "subject": name, "scene": name, "name": shape}
        table.append({"file": name, **about, "split": "held-out", "kind": "occupation"})
    for number in range(3):
        Image.new("RGB", (32, 32), (255, 255, 255 - number)).save(folder / f"white-{number}.png")
        table.append({**dict.fromkeys(table[0], ""), "file": f"white-{number}.png", "kind": "other"})
    write_table(folder / "table.csv", table)
    (folder / "CREDIT.txt").write_text("Drawn by nobody & all", encoding="utf-8")
    return folder


def configured(folder: Path, **options: Any) -> Path:
    """The ``folder`` with the planted model, pictures, sentences, and settings in its config.yaml."""
    planted_vlm.planted(folder)
    shown(folder / "pictures")
    (folder / "sentences.yaml").write_text(yaml.safe_dump(planted_vlm.SENTENCES), encoding="utf-8")
    content = QUICK | {
        "model": str(folder / "planted"), "pictures": str(folder / "pictures"),
        "sentences": str(folder / "sentences.yaml"), "experiment": str(folder / "run"),
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(content | options), encoding="utf-8")
    return folder


def directions(folder: Path, command: str, *options: object) -> int:
    """The status of the command with the settings of the ``folder``."""
    return main([command, "directions", "--config", str(folder / "config.yaml"), *map(str, options)])
