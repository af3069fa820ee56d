"""Reading pictures: any format and mode becomes upright RGB on white, and what is no picture is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from painted import painted
from PIL import Image

from lce.data.pictures.batches import KEPT, PictureBatches, View
from lce.data.pictures.loading import read_picture
from lce.data.pictures.table import Picture
from lce.data.pictures.views import view
from lce.foundations.errors import LceError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def halves(mode="RGB", left=RED, right=BLUE, size=(8, 4)):
    picture = Image.new(mode, size, left)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def colours(picture):
    """Those in the middle of the left and of the right half."""
    assert picture.mode == "RGB"
    width, height = picture.size
    return picture.getpixel((width // 4, height // 2)), picture.getpixel((3 * width // 4, height // 2))


def near(found, wanted):
    return np.abs(np.array(found) - np.array(wanted)).max() <= 3


def test_cmyk(tmp_path):
    halves("CMYK", (0, 255, 255, 0), (255, 255, 0, 0), (32, 16)).save(tmp_path / "p.jpg", quality=100)
    assert Image.open(tmp_path / "p.jpg").mode == "CMYK"
    assert near(colours(read_picture(tmp_path / "p.jpg")), (RED, BLUE))


def test_a_palette_with_a_transparent_colour(tmp_path):
    picture = halves().quantize(2)
    picture.save(tmp_path / "p.png", transparency=picture.getpixel((0, 0)))
    assert Image.open(tmp_path / "p.png").mode == "P"
    assert colours(read_picture(tmp_path / "p.png")) == (WHITE, BLUE)


def test_half_transparent_colours_lie_on_white(tmp_path):
    halves("RGBA", (255, 0, 0, 128), (0, 0, 255, 0)).save(tmp_path / "p.png")
    left, right = colours(read_picture(tmp_path / "p.png"))
    assert near(left, (255, 127, 127))
    assert right == WHITE


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bits_of_grey_keep_their_shades(mode, tmp_path):
    values = np.repeat(np.array([[0, 40000]]), 4, 1).repeat(4, 0)
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    name = "p.png" if mode == "I;16" else "p.tiff"
    Image.frombytes(mode, (8, 4), values.astype(kind).tobytes()).save(tmp_path / name)
    assert Image.open(tmp_path / name).mode == mode
    assert near(colours(read_picture(tmp_path / name)), ((0,) * 3, (round(40000 / 257),) * 3))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBX", "YCbCr"])
def test_other_modes(mode, tmp_path):
    white = Image.new("RGB", (8, 4), "white").convert(mode)
    white.save(tmp_path / "p.tiff")
    assert colours(read_picture(tmp_path / "p.tiff")) == (WHITE, WHITE)


def test_of_several_frames_the_first_one_counts(tmp_path):
    first, second = halves(), halves(left=BLUE, right=RED)
    first.save(tmp_path / "p.gif", save_all=True, append_images=[second, second], duration=10)
    assert Image.open(tmp_path / "p.gif").n_frames > 1
    assert near(colours(read_picture(tmp_path / "p.gif")), (RED, BLUE))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation, tmp_path):
    """As whoever looks at them sees them: red is left, whichever way the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = halves(size=(32, 16))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    if orientation in back:
        stored = stored.transpose(Image.Transpose(back[orientation]))
    stored.save(tmp_path / "p.jpg", exif=exif, quality=100, subsampling=0)
    found = read_picture(tmp_path / "p.jpg")
    assert found.size == (32, 16)
    assert near(colours(found), (RED, BLUE))


def test_a_bounding_box_is_cut_out_of_the_upright_picture(tmp_path):
    halves(size=(32, 16)).save(tmp_path / "p.png")
    assert read_picture(tmp_path / "p.png", (15.6, 2.4, 32.0, 9.0)).size == (16, 7)
    assert colours(read_picture(tmp_path / "p.png", (15.6, 2.4, 32.0, 9.0))) == (BLUE, BLUE)
    assert read_picture(tmp_path / "p.png", (-5, -5, 1000, 1000)).size == (32, 16)


@pytest.mark.parametrize("box", [(32, 0, 40, 10), (0, 16, 10, 20), (-9, 0, -1, 10), (3.1, 0, 3.3, 9)])
def test_a_box_outside_of_the_picture_is_refused(box, tmp_path):
    halves(size=(32, 16)).save(tmp_path / "p.png")
    with pytest.raises(LceError, match=r"p.png: the bounding box \(.*\) lies outside of its 32 × 16 pixels"):
        read_picture(tmp_path / "p.png", box)


def test_what_is_no_picture_is_refused_in_one_line(tmp_path):
    whole = tmp_path / "whole"
    painted("circle", "woman", "light", 0, 200).save(whole, "PNG")
    (tmp_path / "truncated.png").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "text.png").write_text("no picture\nat all", encoding="utf-8")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("truncated", "text", "empty", "folder", "missing"):
        with pytest.raises(LceError, match=rf"{name}\.png: cannot be read as a picture") as error:
            read_picture(tmp_path / f"{name}.png")
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(LceError, match=r"\(no such file\)"):
        read_picture(tmp_path / "missing.png")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_pictures_are_read_or_refused(kind, tmp_path):
    """Whatever bytes are changed: never another error than lce's own."""
    path = tmp_path / "p"
    painted("circle", "woman", "light", 0).save(path, kind)
    content = path.read_bytes()
    random = torch.Generator().manual_seed(0)
    refused = 0
    for number in range(60):
        damaged = bytearray(content)
        for place in torch.randint(min(len(content), (60, 10**6)[number % 2]), (3,), generator=random).tolist():
            damaged[place] = number * 7 % 256
        path.write_bytes(damaged if number % 3 else damaged[: len(damaged) - number])
        try:
            assert read_picture(path).mode == "RGB"
        except LceError:
            refused += 1
    assert refused > 0


def picture(path, box=None):
    return Picture(path, box, None, 0, "s", "b", "n")


def same(one, other):
    return one.size == other.size and one.tobytes() == other.tobytes()


def test_views_are_the_same_every_time_and_different_ones(tmp_path):
    path = tmp_path / "p.png"
    painted("circle", "woman", "light", 0, 60).save(path)
    asked = [view(picture(path), number, 0) for number in range(6)]
    assert same(asked[0], read_picture(path))
    for number, found in enumerate(asked):
        assert same(view(picture(path), number, 0), found)
        assert not any(same(other, found) for other in asked[:number])
    assert not same(view(picture(path), 1, 1), asked[1]), "the seed matters"
    boxed = view(picture(path, (10, 10, 50, 50)), 1, 0)
    assert max(boxed.size) <= 40
    assert boxed.size != asked[1].size


def test_views_are_cut_closer_with_a_part_hidden(tmp_path):
    path = tmp_path / "p.png"
    Image.new("RGB", (100, 80), RED).save(path)
    for number in range(1, 40):
        found = view(picture(path), number, 0)
        assert 65 <= found.width <= 100
        assert 52 <= found.height <= 80
        white = (np.asarray(found) == 255).all(2)
        rows, columns = white.any(1).sum(), white.any(0).sum()
        assert white.sum() == rows * columns, "it is a rectangle"
        assert 0.34 < rows / found.height < 0.66
        assert 0.34 < columns / found.width < 0.66
        assert ((np.asarray(found) == RED).all(2) | white).all()


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_pictures_have_views_too(side, tmp_path):
    Image.new("RGB", (side, 1), RED).save(tmp_path / "p.png")
    assert all(min(view(picture(tmp_path / "p.png"), number, 0).size) >= 1 for number in range(20))


def prepared(images):
    return torch.stack([torch.tensor(np.asarray(image)[0, 0].tolist()) for image in images])


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_hold_every_view_once_and_in_order(size, tmp_path):
    pictures = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (9, 9), (number, 0, 0)).save(path)
        pictures.append(picture(path))
    batches = PictureBatches(pictures, prepared, 2, size, 0)
    assert batches.views == [View(i, number) for i in range(5) for number in range(2)]
    for _ in range(2):
        places, pixels = zip(*batches.read("reading"), strict=True)
        assert [i for place in places for i in range(place.start, place.stop)] == list(range(10))
        assert max(len(part) for part in pixels) <= size
        assert torch.cat(pixels)[::2, 0].tolist() == list(range(5))


def test_pictures_are_read_once_where_all_of_them_are_small(tmp_path, monkeypatch):
    Image.new("RGB", (9, 9)).save(tmp_path / "p.png")
    calls = []
    for kept in (KEPT, 0):
        monkeypatch.setattr("lce.data.pictures.batches.KEPT", kept)
        batches = PictureBatches(
            [picture(tmp_path / "p.png")] * 4, lambda x: (calls.append(1), prepared(x))[1], 1, 2, 0
        )
        for _ in range(3):
            assert len(list(batches.read("reading"))) == 2
    assert len(calls) == 2 + 6


def test_a_picture_that_cannot_be_read_stops_the_reading(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "p.png")
    (tmp_path / "bad.png").write_bytes(b"bad")
    pictures = [picture(tmp_path / "p.png")] * 6 + [picture(tmp_path / "bad.png")] + [picture(tmp_path / "p.png")] * 20
    with pytest.raises(LceError, match=r"bad\.png: cannot be read as a picture"):
        list(PictureBatches(pictures, prepared, 1, 1, 0).read("reading"))
