"""Views of a picture, the same every time: as it is, and cut closer, with a part hidden."""

from __future__ import annotations

import torch
from PIL import Image

from lce.data.pictures.loading import read_picture
from lce.data.pictures.table import Picture
from lce.foundations.seeds import generator

CLOSER, HIDDEN = (0.65, 1.0), (0.35, 0.65)
"""Sides of the part that is cut out, and of the white rectangle, as shares of the picture's."""


def view(picture: Picture, number: int, seed: int) -> Image.Image:
    """View ``number`` of a picture, RGB: 0 is the picture itself, the others are random ones.

    Raises:
        LceError: the picture cannot be read, or its bounding box lies outside of it.
    """
    image = read_picture(picture.file, picture.box)
    if number == 0:
        return image
    random = generator(seed, "view", picture.file.name, str(picture.box), number)
    closer, left, upper, wide, high, x, y = torch.rand(7, generator=random).tolist()
    side = CLOSER[0] + (CLOSER[1] - CLOSER[0]) * closer
    width, height = max(1, round(side * image.width)), max(1, round(side * image.height))
    left, upper = round(left * (image.width - width)), round(upper * (image.height - height))
    cut = image.crop((left, upper, left + width, upper + height))
    sides = [max(1, round((HIDDEN[0] + (HIDDEN[1] - HIDDEN[0]) * share) * whole))
             for share, whole in ((wide, width), (high, height))]  # fmt: skip
    place = round(x * (width - sides[0])), round(y * (height - sides[1]))
    cut.paste((255, 255, 255), (*place, place[0] + sides[0], place[1] + sides[1]))
    return cut
