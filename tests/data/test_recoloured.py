"""Garments in other colours: only what has the garment's fill changes, in drawings made here and in real ones."""

from __future__ import annotations

import csv
from collections import defaultdict

import numpy as np

from lce.data.pictures.loading import read_picture
from lce.data.pictures.recoloured import garment_fill, recoloured, with_fill

COLOURS = {"pink": "#f4a6c8", "blue": "#6ab4ea", "green": "#7cc47a"}
SHIRT, HAT = "#92d3f5", "#ea5a47"
DRAWING = f"""<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">
  <g id="color">
    <rect x="0" y="0" width="72" height="20" fill="{HAT}"/>
    <rect x="16" y="44" width="40" height="28" fill="{SHIRT.upper()}"/>
    <rect x="30" y="50" width="6" height="6" fill="#ffffff"/>
  </g>
  <g id="skin"><circle cx="36" cy="32" r="10" fill="{SHIRT}"/></g>
</svg>"""


def test_the_garment_is_what_covers_most_of_the_chest():
    assert garment_fill(DRAWING) == SHIRT
    assert garment_fill(DRAWING.replace('height="28"', 'height="1"')) is None
    assert garment_fill(DRAWING.replace('id="color"', 'id="other"')) is None


def test_only_the_group_of_colours_is_recoloured():
    found = with_fill(DRAWING, SHIRT, "#123456")
    assert found.count("#123456") == 1
    assert found.count(SHIRT) == 1, "the skin keeps its fill"
    assert HAT in found


def test_real_drawings_change_in_the_garment_alone(drawn, downloads):
    with (drawn / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "occupation" and row["skin_tone"] == "dark"]
    found = defaultdict(dict)
    for file, colour, picture in recoloured([row["file"] for row in rows], downloads, COLOURS):
        found[file][colour] = np.asarray(picture, dtype=int)
    assert len(found) > 0.9 * len(rows)
    for file, pictures in found.items():
        assert set(pictures) == {None, *COLOURS}
        assert (pictures[None] == np.asarray(read_picture(drawn / file))).all(), "as it is, it is the drawn picture"
        changed = np.abs(pictures["pink"] - pictures["green"]).max(2) > 8
        assert 0.005 < changed.mean() < 0.6
        assert (np.abs(pictures["pink"] - pictures["blue"]).max(2)[~changed] <= 16).all()
