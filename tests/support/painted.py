"""Pictures that are drawn here, coloured shapes on white, with a table that says what they show."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle")
GROUPS = {"woman": (220, 60, 60), "man": (60, 60, 220)}
"""The gender of a shape is its colour: red or blue."""
TONES = ("light", "dark")


def painted(shape: str, gender: str, tone: str, number: int, side: int = 32) -> Image.Image:
    """One picture; its number says how large the shape is and where."""
    random = torch.Generator().manual_seed(number)
    left, upper, size = torch.rand(3, generator=random).tolist()
    size = side * (0.45 + 0.3 * size)
    left, upper = left * (side - size), upper * (side - size)
    right, lower = left + size, upper + size
    colour = tuple(round(part * (1.0 if tone == "light" else 0.6)) for part in GROUPS[gender])
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    if shape == "circle":
        draw.ellipse((left, upper, right, lower), fill=colour)
    elif shape == "square":
        draw.rectangle((left, upper, right, lower), fill=colour)
    else:
        draw.polygon([(left, lower), (right, lower), ((left + right) / 2, upper)], fill=colour)
    return picture


def rows(numbers: int = 4) -> list[dict[str, str]]:
    """Each shape in each colour, in two tones, so many times, as tables of drawn pictures say it.

    The last ones of them have no class.
    """
    found = []
    for number, shape, gender, tone in product(range(numbers), SHAPES, GROUPS, TONES):
        found.append({
            "file": f"{shape}-{gender}-{tone}-{number}.png",
            "class": "" if number == numbers - 1 else shape,
            "gender": gender,
            "skin_tone": tone,
            "subject": f"{gender} {shape} {number}",
            "scene": f"{shape} {number}",
            "name": shape,
            "split": "held-out" if number % 2 else "training",
            "kind": "person" if number == numbers - 1 else "occupation",
        })  # fmt: skip
    return found


def write_table(path: Path, table: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def paint(folder: Path, numbers: int = 4) -> Path:
    """The folder with the pictures and table.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in (table := rows(numbers)):
        shape, gender, tone, number = row["file"].removesuffix(".png").split("-")
        painted(shape, gender, tone, int(number)).save(folder / row["file"])
    write_table(folder / "table.csv", table)
    return folder
