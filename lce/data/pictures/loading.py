"""Reading pictures: any format and mode that Pillow knows, as RGB on white."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from lce.foundations.errors import LceError

if TYPE_CHECKING:
    from lce.data.pictures.table import Box


def read_picture(path: str | Path, box: Box | None = None) -> Image.Image:
    """The picture in a file, RGB and upright: white where it is transparent, and the first of several frames.

    Args:
        box: the part that is wanted, (left, upper, right, lower) in pixels.

    Raises:
        LceError: there is no such file, it is no picture or a damaged one, or the box lies outside of it.
    """
    found = on_white(_opened(path))
    if box is None:
        return found
    left, upper = max(0, round(box[0])), max(0, round(box[1]))
    right, lower = min(found.width, round(box[2])), min(found.height, round(box[3]))
    if left >= right or upper >= lower:
        size = f"{found.width} × {found.height}"
        raise LceError(f"{path}: the bounding box {tuple(map(round, box))} lies outside of its {size} pixels")
    return found.crop((left, upper, right, lower))


def on_white(picture: Image.Image) -> Image.Image:
    """The ``picture`` as RGB, white where it is transparent."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def with_alpha(path: str | Path) -> Image.Image:
    """The picture in a file, RGBA. Raises LceError as `read_picture` does."""
    return _opened(path).convert("RGBA")


def _opened(path: str | Path) -> Image.Image:
    """The first frame of a file, upright, its pixels read."""
    try:
        with Image.open(path) as picture:
            picture.seek(0)
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                return upright.convert("I").point(lambda value: value * (1 / 257)).convert("L")
            upright.load()
            return upright
    except (OSError, SyntaxError, ValueError, RuntimeError, EOFError, Image.DecompressionBombError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise LceError(f"{path}: cannot be read as a picture ({reason})") from error
