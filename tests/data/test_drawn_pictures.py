"""The drawn pictures: what their names say, which skin tones are held out, and that they come whole from the wheels."""

from __future__ import annotations

import csv
import random
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from lce.data import wheels
from lce.data.pictures import drawn
from lce.data.pictures.attributes import load_attribute
from lce.data.pictures.drawn import GENDERS, OCCUPATIONS, TONES, described, draw_pictures
from lce.data.pictures.table import read_pictures
from lce.foundations.errors import LceError

BEARDED = "man {}beard", "woman {}beard", "person {}beard"
"""People whose skin tone is named in the middle."""


def sources(*bases):
    """A path for each of the ``bases`` in each tone, which is named at the end or where the base has a {}."""
    found = {}
    for number, (base, tone) in enumerate(product(bases, TONES)):
        said = f"{tone} skin tone " if tone != "yellow" else ""
        name = base.format(said) if "{}" in base else f"{base} {said}"
        found[f"svg/{number:04}.svg"] = name.strip()
    return found


def people():
    """As the names of emoji are: 20 occupations of women, men and people, and others."""
    bases = [f"{gender}{occupation}" for gender in ("woman ", "man ", "") for occupation in OCCUPATIONS]
    return sources(*bases, "woman", "man running", "person", "waving hand", *BEARDED)


def by_name(found):
    return {(drawing.subject, drawing.skin_tone): drawing for _, drawing in found.items()}


@pytest.fixture(scope="module")
def known():
    return by_name(dict(described(people())))


def test_there_are_twenty_occupations():
    assert len(set(OCCUPATIONS)) == len(OCCUPATIONS) == 20
    assert len(set(TONES)) == 6


def test_people_with_an_occupation(known):
    for occupation, tone in product(OCCUPATIONS, TONES):
        for gender, subject in (("woman", f"woman {occupation}"), ("man", f"man {occupation}"), ("person", occupation)):
            found = known[subject, tone]
            assert (found.kind, found.class_, found.gender) == ("occupation", occupation, gender)
            assert (found.name, found.scene) == (occupation, occupation)


def test_people_without_one_and_other_things(known):
    for subject, gender, scene in (("woman", "woman", "person"), ("man running", "man", "running"),
                                   ("person beard", "person", "beard"), ("woman beard", "woman", "beard")):  # fmt: skip
        for tone in TONES:
            found = known[subject, tone]
            assert (found.kind, found.class_, found.gender) == ("person", "", gender)
            assert (found.name, found.scene) == (subject, scene)
    assert known["waving hand", "dark"].kind == "other"
    assert known["waving hand", "dark"].gender == ""
    couple = by_name(dict(described(sources("woman and man holding hands"))))
    assert {drawing.kind for drawing in couple.values()} == {"other"}, "two people are none of one gender"


def test_a_lighter_and_a_darker_tone_of_each_person_are_held_out(known):
    """The same of women and men in one scene, so that gender and tone are told apart by nothing else."""
    held_out = {}
    for (subject, tone), found in known.items():
        held_out.setdefault((found.scene, subject), set()).update({tone} if found.split == "held-out" else ())
    assert all(len(tones & {"light", "medium-light"}) == 1 for tones in held_out.values())
    assert all(len(tones & {"medium-dark", "dark"}) == 1 for tones in held_out.values())
    assert set(map(len, held_out.values())) == {2}
    assert len({frozenset(tones) for tones in held_out.values()}) == 4, "each pair is held out somewhere"
    by_scene = {}
    for (scene, _), tones in held_out.items():
        assert by_scene.setdefault(scene, tones) == tones


def test_names_alone_say_which_are_held_out(known):
    """Neither the order of the files nor their number matters."""
    shuffled = list(people().items())
    random.Random(0).shuffle(shuffled)
    assert by_name(dict(described(dict(shuffled)))) == known


def test_what_does_not_come_in_all_six_tones_is_shown_in_training():
    some = dict(list(sources("woman cook").items())[:5])
    names = {**some, "a.svg": "cat", "b.svg": "couple dark skin tone light skin tone", "c.svg": "red apple"}
    found = dict(described(names))
    assert {drawing.kind for drawing in found.values()} == {"other"}
    assert {drawing.split for drawing in found.values()} == {"training"}
    assert {drawing.skin_tone for drawing in found.values()} == {""}
    assert found["a.svg"].name == "cat"
    assert found["b.svg"].name == "couple dark skin tone light skin tone"
    assert "woman cook with light skin" in {drawing.name for drawing in found.values()}


def test_every_file_is_described_once():
    given = {**people(), "x.svg": "cat"}
    found = list(described(given))
    assert sorted(path for path, _ in found) == sorted(given)
    assert all(drawing.file == f"{Path(path).stem}.png" for path, drawing in found)


@pytest.fixture(scope="module")
def rendered(downloads, tmp_path_factory):
    """All pictures, from the real wheels, as small ones: seconds."""
    folder = tmp_path_factory.mktemp("drawn") / "pictures"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "SIZE", 12)
        return draw_pictures(folder, downloads)


def test_all_pictures_are_drawn_and_credited(rendered):
    with (rendered / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "name", "kind", "class", "gender", "skin_tone", "split", "subject", "scene"]
    assert len(rows) > 3700
    assert {path.name for path in rendered.iterdir()} == {row["file"] for row in rows} | {"table.csv", "CREDIT.txt"}
    assert len({row["file"] for row in rows}) == len(rows)
    assert "OpenMoji" in (rendered / "CREDIT.txt").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in (rendered / "CREDIT.txt").read_text(encoding="utf-8")
    shown = Counter((row["class"], row["gender"]) for row in rows if row["kind"] == "occupation")
    for occupation, gender in product(OCCUPATIONS, ("woman", "man")):
        assert shown[occupation, gender] == 6
    assert {gender for _, gender in shown} == set(GENDERS)
    for row in rows[::200]:
        with Image.open(rendered / row["file"]) as picture:
            assert (picture.size, picture.mode) == ((12, 12), "RGBA")
            assert picture.getchannel("A").getextrema()[1] > 0, row["name"]


def test_the_drawn_pictures_are_a_table_for_an_audit(rendered):
    where = {"split": ["held-out"], "kind": ["occupation", "person"]}
    table = rendered / "table.csv"
    found = read_pictures(rendered, table, load_attribute("gender"), where, matched="scene")
    assert found.classes == sorted(OCCUPATIONS)
    groups = Counter(picture.group for picture in found.pictures if picture.label is not None)
    assert groups[0] == groups[1] == 40
    assert len(read_pictures(rendered, table, load_attribute("skin-tone"), where, matched="subject").pictures) > 300


def test_they_are_drawn_once(rendered, monkeypatch):
    monkeypatch.setattr(drawn, "_draw", None)
    assert draw_pictures(rendered, "nowhere") == rendered


def test_without_the_renderer_nothing_is_made(tmp_path, downloads, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(LceError, match=r"drawing pictures needs resvg-py; `pip install 'lce\[pictures\]'` installs it"):
        draw_pictures(tmp_path / "pictures", downloads)
    assert not (tmp_path / "pictures").exists()


def test_an_archive_that_was_altered_leaves_no_pictures(tmp_path, downloads):
    names = wheels.fetch(wheels.EMOJI, downloads)
    here = tmp_path / "downloads"
    (here / names.name).mkdir(parents=True)
    (here / names.name / "emoji.json").write_bytes((names / "emoji.json").read_bytes())
    altered = here / f"{wheels.OPENMOJI.package}-{wheels.OPENMOJI.version}"
    altered.mkdir()
    (altered / wheels.ARCHIVE).write_bytes(b"PK")
    with pytest.raises(LceError, match=r"archive\.whl: was altered \(SHA-256"):
        draw_pictures(tmp_path / "pictures", here)
    assert not (tmp_path / "pictures").exists()
