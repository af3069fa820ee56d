"""The same drawing with a garment in another colour: one fill of the SVG is changed, and nothing else.

In OpenMoji's drawings of people, skin, hair and outlines are groups of their own. The garment is taken to be what has
the fill, of the group of colours, that covers most of the chest: the middle of the lower third.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from lce.data import wheels
from lce.data.pictures.drawn import SIZE, render
from lce.data.pictures.loading import on_white

SVG = "{http://www.w3.org/2000/svg}"
MARK = ("#ff00ff", "#00ff00")
"""Colours that show where a fill is visible: it is where they differ."""
LEAST_VISIBLE = 0.1
"""Share of the chest that a garment covers at least."""


class Recoloured(NamedTuple):
    """A ``picture``, RGB, whose garment has a ``colour``; None is the drawing as it is."""

    file: str
    colour: str | None
    picture: Image.Image


def recoloured(files: Iterable[str], downloads: str | Path, colours: Mapping[str, str]) -> Iterator[Recoloured]:
    """Each drawing of ``files``, as the table names them, as it is and in each of the ``colours``, by name.

    Drawings without a garment of one fill are left out.

    Raises:
        LceError: the wheel cannot be fetched, or the renderer is not installed.
    """
    archive = wheels.fetch(wheels.OPENMOJI, downloads) / wheels.ARCHIVE
    with zipfile.ZipFile(archive) as content:
        for file in files:
            svg = content.read(f"{wheels.OPENMOJI.prefix}{Path(file).stem}.svg").decode()
            if (fill := garment_fill(svg)) is None:
                continue
            for name, colour in ((None, None), *colours.items()):
                drawn = svg if colour is None else with_fill(svg, fill, colour)
                yield Recoloured(file, name, _picture(drawn, SIZE))


def garment_fill(svg: str) -> str | None:
    """The fill that covers most of the chest; None if none covers enough."""
    found = {fill: _visible(svg, fill) for fill in sorted(_fills(svg))}
    fill = max(found, key=lambda one: found[one], default=None)
    return fill if fill is not None and found[fill] >= LEAST_VISIBLE else None


def with_fill(svg: str, fill: str, colour: str) -> str:
    """The drawing with every ``fill`` of its group of colours replaced by ``colour``."""
    ElementTree.register_namespace("", SVG.strip("{}"))
    root = ElementTree.fromstring(svg)
    for element in _coloured(root):
        if element.get("fill", "").lower() == fill:
            element.set("fill", colour)
    return ElementTree.tostring(root, encoding="unicode")


def _coloured(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """All that is in the group of colours."""
    for group in root.iter(f"{SVG}g"):
        if group.get("id") == "color":
            yield from group.iter()


def _fills(svg: str) -> set[str]:
    found = {element.get("fill", "").lower() for element in _coloured(ElementTree.fromstring(svg))}
    return found - {"", "none"}


def _visible(svg: str, fill: str) -> float:
    """The share of the chest that is of this fill."""
    one, other = (np.asarray(_picture(with_fill(svg, fill, mark), 72), dtype=int) for mark in MARK)
    differs = (np.abs(one - other) > 64).any(2)
    quarter = len(differs) // 4
    return float(differs[len(differs) * 2 // 3 :, quarter:-quarter].mean())


def _picture(svg: str, size: int) -> Image.Image:
    with Image.open(BytesIO(render(svg, size))) as picture:
        return on_white(picture)
