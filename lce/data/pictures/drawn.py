"""Drawn pictures of people, things and signs with their English names: OpenMoji, rendered on this machine.

People stand in the table with their occupation, if they have one, their depicted gender and their skin tone, so that
both are known of every picture. OpenMoji is licensed under CC BY-SA 4.0; nothing of it comes with lce.
"""

from __future__ import annotations

import csv
import json
import logging
import re
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from tqdm import tqdm

from lce.data import wheels
from lce.data.pictures.table import TABLE
from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.locks import held
from lce.foundations.seeds import generator

log = logging.getLogger(__name__)

SIZE = 144
"""Width and height of a picture [pixels]."""
TONES = ("yellow", "light", "medium-light", "medium", "medium-dark", "dark")
"""Skin tones; yellow is that of a picture without one."""
LIGHTER, DARKER = TONES[1:3], TONES[4:]
"""Tones of which one each is held out."""
OCCUPATIONS = (
    "artist", "astronaut", "construction worker", "cook", "detective", "factory worker", "farmer", "firefighter",
    "guard", "health worker", "judge", "mechanic", "office worker", "pilot", "police officer", "scientist", "singer",
    "student", "teacher", "technologist",
)  # fmt: skip
GENDERS = ("woman", "man", "person")
FULLY_QUALIFIED = 2
SELECTOR = "FE0F"
"""What has an emoji shown as a picture, which some files' names leave out."""
CREDIT = """The pictures in this folder are OpenMoji, the open-source emoji and icon project (https://openmoji.org),
version 17.0.0, licensed under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/); rendered without changes.
"""


@dataclass(frozen=True)
class Drawing:
    """One row of the table.

    Attributes:
        file: the picture, in the same folder.
        name: what it shows, without skin tone; of people with an occupation, without gender too.
        kind: occupation, person (with gender and skin tone, but without an occupation) or other.
        class: the occupation, where there is one.
        gender: as depicted: woman, man, or person where it is left open; empty for anything else.
        skin_tone: one of `TONES`; empty for what exists in one colour only.
        split: training, or held-out: two of the six tones of everything that comes in six, a lighter and a darker one.
        subject: what is drawn in several skin tones: the name with gender.
        scene: what is drawn of women and men alike: the name without gender, or person where that is all of it.
    """

    file: str
    name: str
    kind: str
    class_: str
    gender: str
    skin_tone: str
    split: str
    subject: str
    scene: str


def draw_pictures(folder: str | Path, downloads: str | Path) -> Path:
    """The folder with the rendered pictures and their table; made once.

    Raises:
        LceError: a wheel cannot be fetched, or the renderer is not installed.
    """
    folder = Path(folder)
    if not (folder / TABLE).exists():
        with held(folder.with_name(f".{folder.name}.lock"), f"{folder}: another process draws it", patience=-1):
            if not (folder / TABLE).exists():
                _draw(folder, Path(downloads))
    return folder


def _draw(folder: Path, downloads: Path) -> None:
    check_renderer()
    names = json.loads((wheels.fetch(wheels.EMOJI, downloads) / "emoji.json").read_text(encoding="utf-8"))
    archive = wheels.fetch(wheels.OPENMOJI, downloads) / wheels.ARCHIVE
    with zipfile.ZipFile(archive) as content, new_folder(folder) as temporary:
        present = set(content.namelist())
        sources = {
            path: about["en"].strip(":").replace("_", " ")
            for emoji, about in names.items()
            if about["status"] == FULLY_QUALIFIED and (path := _path(emoji, present))
        }
        drawings = list(described(sources))
        for path, drawing in tqdm(drawings, desc="drawing pictures", delay=2, leave=False, disable=None):
            (temporary / drawing.file).write_bytes(render(content.read(path).decode(), SIZE))
        with (temporary / TABLE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(field.name.rstrip("_") for field in fields(Drawing))
            writer.writerows(asdict(drawing).values() for _, drawing in drawings)
        (temporary / "CREDIT.txt").write_text(CREDIT, encoding="utf-8")
    log.info("%s: %s pictures", folder, f"{len(drawings):,}")


def check_renderer() -> None:
    """Raises LceError if the renderer is not installed."""
    try:
        import resvg_py  # noqa: F401
    except ImportError as error:
        raise LceError("drawing pictures needs resvg-py; `pip install 'lce[pictures]'` installs it") from error


def render(svg: str, size: int) -> bytes:
    """The PNG of an SVG, ``size`` pixels wide and high; LceError if the renderer is not installed."""
    check_renderer()
    from resvg_py import svg_to_bytes

    return svg_to_bytes(svg_string=svg, width=size, height=size)


def _path(emoji: str, present: Collection[str]) -> str | None:
    """Where among the files that are ``present`` the drawing of an ``emoji`` lies, if it is there."""
    codes = [f"{ord(character):04X}" for character in emoji]
    names = ("-".join(codes), "-".join(code for code in codes if code != SELECTOR))
    return next((path for name in names if (path := f"{wheels.OPENMOJI.prefix}{name}.svg") in present), None)


def described(sources: dict[str, str]) -> Iterator[tuple[str, Drawing]]:
    """Each path of ``sources`` with what its name says about the picture.

    Of everything that comes in six tones, one lighter and one darker tone are held out: the same two of the woman, the
    man and the person of a scene.
    """
    tone = re.compile(rf" ({'|'.join(TONES[1:])}) skin tone\b")
    variants: dict[str, dict[str, str]] = defaultdict(dict)
    for path, name in sources.items():
        found = tone.findall(name)
        base, shade = (tone.sub("", name), found[0]) if len(found) == 1 else (name, TONES[0])
        variants[base][shade] = path
    toned = {base: _person(base) for base, paths in variants.items() if set(paths) == set(TONES)}
    scenes = sorted({about[-1] for about in toned.values()})
    random = generator("tones held out")
    held_out = {scene: {_one_of(LIGHTER, random), _one_of(DARKER, random)} for scene in scenes}
    for base, paths in variants.items():
        kind, occupation, gender, name, scene = toned.get(base, ("other", "", "", base, base))
        for shade, path in paths.items():
            yield (
                path,
                Drawing(
                    file=f"{Path(path).stem}.png",
                    name=name if base in toned or shade == TONES[0] else f"{name} with {shade} skin",
                    kind=kind,
                    class_=occupation,
                    gender=gender,
                    skin_tone=shade if base in toned else "",
                    split="held-out" if base in toned and shade in held_out[scene] else "training",
                    subject=base,
                    scene=scene,
                ),
            )


def _one_of(tones: tuple[str, ...], random: torch.Generator) -> str:
    return tones[int(torch.randint(len(tones), (1,), generator=random))]


def _person(base: str) -> tuple[str, str, str, str, str]:
    """Kind, occupation, gender, name and scene of what comes in six skin tones."""
    if base in OCCUPATIONS:
        return "occupation", base, "person", base, base
    first, _, rest = base.partition(" ")
    if rest in OCCUPATIONS:
        return "occupation", rest, first, rest, rest
    if first in GENDERS and not set(rest.split()) & set(GENDERS):  # not: woman and man holding hands
        return "person", "", first, base, rest or "person"
    return "other", "", "", base, base
