"""What `lce localize heads` and `lce edit heads` are given: pictures of one's own, and what is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from clips import planted, saved
from conftest import BASE
from head_audits import configured, heads
from painted import paint, rows, write_table
from patches import files
from PIL import Image

from lce.cli import main
from lce.localize.selection import Selection

QUICKLY = ["--measure", "false", "--edits", "[mean]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What is fine, and beside it models, pictures and tables that are not."""
    folder = tmp_path_factory.mktemp("inputs")
    clip = planted(folder)
    paint(folder / "pictures")
    configured(folder, clip.name)
    alone = saved(folder / "half")
    (alone / "model.safetensors").write_bytes((alone / "model.safetensors").read_bytes()[:5000])
    shutil.copytree(folder / "pictures", folder / "corrupt")
    (folder / "corrupt/square-man-dark-1.png").write_bytes(b"\x89PNG no picture")
    shutil.copytree(folder / "pictures", folder / "lacking")
    (folder / "lacking/square-man-dark-1.png").unlink()
    write_table(folder / "men.csv", [row for row in rows() if row["gender"] == "man"])
    write_table(folder / "few.csv", [r for r in rows() if r["gender"] == "man" or r["subject"] < "woman circle 3"])
    write_table(folder / "boxes.csv", [row | {"box": "{'x': 90, 'y': 0, 'width': 9, 'height': 9}"} for row in rows()])
    (folder / "ragged.csv").write_text("file,class,gender\na,b\n", encoding="utf-8")
    (folder / "text.txt").write_text("mine", encoding="utf-8")
    (folder / "mine").mkdir()
    (folder / "mine/notes").write_text("mine", encoding="utf-8")
    (folder / "empty").mkdir()
    (folder / "words.yaml").write_text("column: gender\n", encoding="utf-8")
    return folder


def check_refused(folder, capfd, message, run):
    """One line on the screen, and no file that was not there before."""
    before = files(folder)
    capfd.readouterr()
    assert run() == 2
    printed = capfd.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("lce: error:")]
    assert len(errors) == 1, printed.err
    assert message in errors[0]
    assert "Traceback" not in printed.err
    assert files(folder) == before
    assert not list(folder.rglob(".lce-*"))
    assert not (folder / "run").exists()


@pytest.mark.parametrize("command", ["localize", "edit"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "{}/none"], "none: no such folder"),
        (["--model", "{}/half"], "half"),
        (["--model", str(BASE)], "is no CLIP; a model with an image and a text encoder is needed"),
        (["--model", "{}/pictures"], "model {}/pictures"),
        (["--device", "nowhere"], "device nowhere"),
        (["--size", "13"], "size: 13 heads are wanted, but only"),
        (["--size", "0"], "size: expected"),
        (["--rank", "7"], "rank: expected at most texts (6), got 7"),
        (["--attribute", "height"], "attribute height: is none of age, gender, skin-tone, nor a YAML file"),
        (["--attribute", "{}/words.yaml"], "words.yaml: expected column: NAME, groups: two names"),
        (["--attribute", "age"], "has no column 'age'; its columns are file, class, gender"),
        (["--classes", "[circle, hexagon]"], "classes: no row of {}/pictures/table.csv has the class 'hexagon'"),
        (["--classes", "[circle]"], "classes: expected at least two different ones, got ['circle']"),
        (["--where", "{'split': [none]}"], "where: no row of {}/pictures/table.csv has these values"),
        (["--where", "{'colour': [red]}"], "has no column 'colour'"),
        (["--pictures", "{}/none"], "none/table.csv: cannot be read as a CSV table (no such file)"),
        (["--pictures", "{}/empty"], "empty/table.csv: cannot be read as a CSV table (no such file)"),
        (["--pictures", "{}/lacking"], "lacking/square-man-dark-1.png: no such file; {}/lacking/table.csv lists it"),
        (["--pictures", "{}/corrupt"], "corrupt/square-man-dark-1.png: cannot be read as a picture"),
        (["--table", "{}/men.csv"], "men.csv: no row has the gender of the group woman (woman)"),
        (["--table", "{}/few.csv"], "pictures: 3 people of the group woman; at least 4 are needed"),
        (["--table", "{}/ragged.csv"], "ragged.csv, line 2: expected 3 values"),
        (["--table", "{}/boxes.csv"], "the bounding box (90, 0, 99, 9) lies outside of its 32 × 32 pixels"),
        (["--table", "{}/none.csv"], "none.csv: cannot be read as a CSV table (no such file)"),
        (["--dictionary", "{}/none.txt"], "dictionary {}/none.txt: cannot be read as UTF-8 text"),
        (["--templates", "[a picture]"], "templates: expected {} once in each, got 'a picture'"),
        (["--unknown", "1"], "unknown"),
        (["one", "two"], "expected MODEL, or none; got one two"),
    ],
)  # fmt: skip
def test_what_neither_command_can_use(folder, command, options, message, capfd):
    given = [option.replace("{}", str(folder)) for option in options]
    if options[0] != "--templates":
        message = message.replace("{}", str(folder))
    check_refused(folder, capfd, message, lambda: heads(folder, command, *given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--edits", "[]"], "edits: expected each once, at least one, got []"),
        (["--edits", "[mean, mean]"], "edits: expected each once, at least one"),
        (["--edits", "[median]"], "edits: expected"),
        (["--leaning", "[hexagon]"], "leaning: 'hexagon' is none of the classes, circle, square, triangle"),
        (["--matched", "pose"], "has no column 'pose'"),
        (["--compared", "{'age': null}"], "has no column 'age'"),
        (["--compared", "{'height': null}"], "attribute height: is none of"),
        (["--random_sets", "-1"], "random_sets: expected 0 or more"),
        (["--measure", "false", "--random_sets", "3"], "--random_sets does not apply without measuring"),
        (["--output", "{}/mine"], "mine: exists and holds no results of lce edit"),
        (["--output", "{}/text.txt"], "text.txt: exists and holds no results of lce edit"),
        (["--patch", "{}/text.txt"], "text.txt: exists and is not a patch made by lce"),
        (["--patch", "{}/mine"], "mine: exists and is not a patch made by lce"),
    ],
)
def test_what_cannot_be_edited(folder, options, message, capfd):
    given = [option.replace("{}", str(folder)) for option in options]
    check_refused(folder, capfd, message, lambda: heads(folder, "edit", *given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--edits", "[mean]"], "--edits does not apply to lce localize heads"),
        (["--patch", "{}/p"], "--patch does not apply to lce localize heads"),
        (["--output", "{}/s.yaml"], "s.yaml: is the name that a settings file of localize beside it gets"),
        (["--output", "{}/text.txt"], "text.txt: exists and is not a selection made by lce"),
        (["--output", "{}/config.safetensors"], "config.yaml: exists and is not a settings file of localize"),
    ],
)
def test_what_cannot_be_localized(folder, options, message, capfd):
    given = [option.replace("{}", str(folder)) for option in options]
    check_refused(folder, capfd, message, lambda: heads(folder, "localize", *given))


def test_a_model_that_writes_nothing_is_not_edited_again(folder, tmp_path, capfd):
    """One whose heads were all taken out sees nothing of a picture any more."""
    every = ["--size", "12", "--rank", "6", "--texts", "6"]
    assert heads(folder, "edit", *QUICKLY, *every, "--output", tmp_path / "first") == 0
    patch = tmp_path / "first/mean.patch.safetensors"
    out = tmp_path / "silent"
    assert main(["patch", "apply", str(folder / "planted"), "--patch", str(patch), "--out", str(out)]) == 0
    message = "pictures: the model embeds all of them alike, so no head tells them apart by the concept"
    check_refused(folder, capfd, message, lambda: heads(folder, "edit", *QUICKLY, *every, "--model", out))


def result(capsys):
    return json.loads(Path(capsys.readouterr().out.splitlines()[-1]).read_text(encoding="utf-8"))


def test_an_attribute_of_ones_own_and_a_table_elsewhere(folder, tmp_path, capsys):
    (tmp_path / "tone.yaml").write_text(
        "column: skin_tone\ngroups: {bright: {values: [light], words: [girl]}, dim: {values: [dark], words: [boy]}}\n",
        encoding="utf-8",
    )
    table = shutil.copy(folder / "pictures/table.csv", tmp_path / "t.csv")
    options = ["--attribute", tmp_path / "tone.yaml", "--table", table, "--matched", "subject", "--rank", "6"]
    assert heads(folder, "edit", *options, "--edits", "[mean]", "--output", tmp_path / "out") == 0
    found = result(capsys)
    assert (found["attribute"], found["groups"]) == ("tone", ["bright", "dim"])
    assert found["before"]["pictures"] == 48


def test_boxes_of_a_table_are_what_is_looked_at(folder, tmp_path):
    """Cut out of the middle, red and blue are all that a picture shows, so the planted head is the same."""
    box = "{'x': 12, 'y': 12, 'width': 8, 'height': 8}"
    write_table(tmp_path / "t.csv", [row | {"box": box} for row in rows()])
    path = tmp_path / "s.safetensors"
    assert heads(folder, "localize", "--table", tmp_path / "t.csv", "--output", path) == 0
    assert Selection.load(path).count == 1


def test_animated_and_cmyk_pictures_are_no_obstacle(folder, tmp_path, capsys):
    pictures = shutil.copytree(folder / "pictures", tmp_path / "pictures")
    table = rows()
    for number, row in enumerate(table[:6]):
        with Image.open(pictures / row["file"]) as picture:
            name = f"{number}.{('gif', 'jpg', 'webp')[number % 3]}"
            if number % 3 == 1:
                picture.convert("CMYK").save(pictures / name)
            else:
                picture.save(pictures / name, save_all=True, append_images=[Image.new("RGB", picture.size)])
        (pictures / row["file"]).unlink()
        row["file"] = name
    write_table(pictures / "table.csv", table)
    assert heads(folder, "edit", *QUICKLY, "--pictures", pictures, "--output", tmp_path / "out") == 0
    assert [row["head"] for row in result(capsys)["selected"]] == [1]
