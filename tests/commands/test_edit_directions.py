"""`lce localize directions` and `lce edit directions`, from the command line to the files, on the planted model."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from direction_runs import configured, directions
from patches import files
from planted_vlm import ENTRY, LAYERS, PLANTED

import lce
from lce.cli import main
from lce.data.pictures.loading import read_picture
from lce.localize.selection import Selection
from lce.models.image_text import load_image_text
from lce.patch.hooks import HookPatch

UNIT = f"language_model.layers.{PLANTED}.visual"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return configured(tmp_path_factory.mktemp("directions"))


@pytest.fixture(scope="module")
def edited(folder):
    """The path of the result of an edit with those settings, and what was printed."""
    with redirect_stdout(StringIO()) as printed:
        assert directions(folder, "edit") == 0
    return Path(printed.getvalue().rstrip("\n").splitlines()[-1]), printed.getvalue()


@pytest.fixture
def result(edited):
    return json.loads(edited[0].read_text(encoding="utf-8"))


def last_line(capsys):
    return Path(capsys.readouterr().out.rstrip("\n").splitlines()[-1])


def test_localize_finds_the_planted_layer(folder, tmp_path, capsys):
    assert directions(folder, "localize", "--output", tmp_path / "s.safetensors") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(tmp_path / "s.safetensors")
    assert "area under the curve" in printed
    selection = Selection.load(tmp_path / "s.safetensors")
    assert (selection.kind, selection.count, selection.size) == ("direction", 1, LAYERS)
    assert selection.indices[UNIT].tolist() == [0]
    [row] = selection.details[UNIT]
    assert (row["layer"], row["source"]) == (PLANTED, "texts")
    assert row["separation"] > 0.9
    assert yaml.safe_load((tmp_path / "s.yaml").read_text(encoding="utf-8"))["k"] == 8


def test_the_result_holds_checks_and_files(edited, result):
    path, printed = edited
    assert printed.rstrip("\n").splitlines()[-1] == str(path)
    assert set(result["checks"]) == {"L1", "L2", "L3", "L4"}
    for check in result["checks"].values():
        assert {"what", "value", "interval", "n", "bar", "holds"} <= set(check)
    assert Path(result["model"]).is_dir()
    assert Selection.load(Path(result["selection"])).indices[UNIT].tolist() == [0]
    assert result["counts"] == {"shown": 54, "chosen_by": 48, "without_people": 3}
    assert result["rerun"] == {"command": "edit directions", "config": str(path.parent / "config.yaml")}
    assert result["patch"] == result["patches"]["zero"] == str(path.parent / "zero.patch.safetensors")
    about = HookPatch.load(result["patch"]).provenance
    assert about["scores"]["gap"]["before"] == result["before"]["gap"]["value"]
    assert about["scores"]["gap"]["after"] == result["edits"][0]["gap"]["value"]
    assert "NaN" not in path.read_text(encoding="utf-8")


def test_the_planted_direction_is_found_and_taken_out(result):
    assert result["layer"] == PLANTED
    for row in result["layers"]:
        separation = row["measured"]["value"]
        assert separation > 0.9 if row["layer"] == PLANTED else separation == 0.5
    direction = HookPatch.load(result["patch"]).shift.direction
    assert direction.abs().argmax() == ENTRY
    assert direction.abs().max() > 0.999
    checks, [zero, mean] = result["checks"], result["edits"]
    assert checks["L1"]["value"] > 0.9
    assert checks["L3"]["value"] > 0.9
    assert abs(zero["moved"]["value"]) > checks["L3"]["random"]["same_strength"]["moved"]
    assert result["before"]["gap"]["value"] > 1
    assert zero["gap"]["value"] == mean["gap"]["value"] == 0
    assert zero["gap_taken"]["value"] == 1
    assert abs(zero["odds_gap"]["value"]) < 0.01 * abs(result["before"]["odds_gap"]["value"])
    assert set(result["before"]["described"]) == {"woman", "man", "neither"}
    curves = result["layers"][PLANTED]["curves"]
    assert curves["woman"]["value"] > 0.5
    assert curves["man"]["value"] < -0.5
    assert curves["without people"]["n"] == 3
    assert result["without_people"]["odds"]["n"] == 3


def test_random_directions_and_other_layers_do_not(result):
    assert len(result["random"]) == 20
    kept = result["edits"][0]
    assert all(row["taken"]["value"] < 0.5 for row in result["random"])
    for row in result["random"]:
        assert abs(row["moved"]["value"]) < abs(kept["moved"]["value"])
        assert row["scaled"]["size"] == pytest.approx(kept["size"], rel=1e-4)
        assert row["scaled"]["alpha"] == pytest.approx(kept["size"] / row["size"], rel=1e-4)
    assert [row["layer"] for row in result["elsewhere"]] == [number for number in range(LAYERS) if number != PLANTED]
    assert all(abs(row["moved"]["value"]) < 1e-4 for row in result["elsewhere"])


def test_classes_say_what_is_held_inside_and_what_is_answered(result):
    assert [row["class"] for row in result["classes"]] == ["circle", "square", "triangle"]
    for row in result["classes"]:
        assert row["n"] == 2
        assert len(row["curve"]) == LAYERS
        assert row["regime"].startswith(("agreement", "divergence", "neutral"))
    assert result["ambiguous"] == "pictures of neither group"
    assert result["agreement"]["n"] == 3


def test_the_patch_works_under_generation(result, folder):
    model = load_image_text(folder / "planted", "cpu")
    picture = read_picture(folder / "pictures/circle-woman-light-1.png")
    inputs = model.inputs([picture], [model.prompt("Who?", "It is")])
    asked = {"max_new_tokens": 1, "do_sample": False}
    patched = lce.from_pretrained(folder / "planted", patch=result["patch"]).eval()
    before, after = (one.generate(**inputs, **asked)[0, -1:] for one in (model.model, patched))
    assert model.processor.tokenizer.decode(before).strip() == "she"
    assert not torch.equal(before, after)


def test_the_page_and_the_figures_show_it(edited, result):
    path, printed = edited
    page = (path.parent / "report.html").read_text(encoding="utf-8")
    for text in (
        f"edit in layer {PLANTED + 1}",
        "Drawn by nobody &amp; all",
        "Over pictures",
        "forced choice",
        "<td>L3</td>",
    ):
        assert text in page
    assert page.count("<svg") == 4
    for name in ("curves.png", "separation.png", "moves.png", "maps.png"):
        assert (path.parent / name).read_bytes().startswith(b"\x89PNG")
    for text in ("unedited", "20 random directions", "L4", result["patch"], "triangle"):
        assert text in " ".join(printed.split())


def test_the_same_again_makes_nothing_and_other_settings_go_elsewhere(folder, edited, capsys, monkeypatch):
    before, made = files(edited[0].parent), edited[0].stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("lce.commands.direction_run.open_direction_audit", None)
        assert directions(folder, "edit") == 0
        assert last_line(capsys) == edited[0]
        assert directions(folder, "edit", "--batch_size", "5", "--device", "auto") == 0
        assert last_line(capsys) == edited[0]
        assert main(["edit", "directions", "--config", str(edited[0].parent / "config.yaml")]) == 0
    assert last_line(capsys) == edited[0]
    assert edited[0].stat().st_mtime_ns == made
    few = ["--without_people", "{}", "--random_directions", "0", "--shuffles", "0"]
    others = ["--source", "pictures", "--edits", "[mean]", "--positions", "all"]
    assert directions(folder, "edit", *few, *others) == 0
    other = last_line(capsys)
    assert other.parent.parent == edited[0].parent.parent
    found = json.loads(other.read_text(encoding="utf-8"))
    assert found["random"] == []
    assert not found["checks"]["L1"]["holds"], "nothing says what chance would do"
    assert not found["checks"]["L3"]["holds"]
    assert "L2" not in found["checks"], "what pictures without people would do is not known"
    assert "without_people" not in found
    kept = HookPatch.load(found["patch"])
    assert (kept.positions, kept.provenance["strategy"]) == ("all", "direction at its mean")
    assert kept.shift.centre == kept.provenance["centre"]
    assert files(edited[0].parent) == before


def test_where_no_token_leans_there_is_nothing_to_take_away(folder, capsys):
    """In the first layer, LALS of every picture is 0: shares of it are not defined, and no check breaks over that."""
    few = ["--layers", "[1]", "--edits", "[mean]", "--shuffles", "0", "--random_directions", "2"]
    assert directions(folder, "edit", *few) == 0
    found = json.loads(last_line(capsys).read_text(encoding="utf-8"))
    assert found["before"]["leaning"]["value"] == 0
    assert found["edits"][0]["taken"]["value"] is None
    assert found["edits"][0]["gap_taken"]["value"] is None
    assert not found["checks"]["L3"]["holds"]


def test_the_same_settings_elsewhere_give_the_same_bytes(folder, edited, tmp_path, capsys):
    assert directions(folder, "edit", "--output", tmp_path / "out") == 0
    assert last_line(capsys) == tmp_path / "out/result.json"
    first, second = files(edited[0].parent), files(tmp_path / "out")
    assert set(first) == set(second)
    for name, content in second.items():
        if name.endswith(".safetensors"):
            assert content == first[name], name
    moved = second["result.json"].replace(str(tmp_path / "out").encode(), str(edited[0].parent).encode())
    assert moved == first["result.json"]
    assert directions(folder, "edit", "--output", tmp_path / "out", "--seed", "1") == 2
    assert "holds the result of other settings or models" in capsys.readouterr().err
    assert files(tmp_path / "out") == second


def test_a_patch_goes_where_it_is_wanted_without_measuring(folder, tmp_path, capsys):
    patch = tmp_path / "mine.safetensors"
    few = ["--measure", "false", "--edits", "[mean]", "--patch", patch, "--output", tmp_path / "out", "--layers", "[4]"]
    assert directions(folder, "edit", *few) == 0
    found = json.loads(last_line(capsys).read_text(encoding="utf-8"))
    assert (found["patch"], found["checks"]) == (str(patch), {})
    assert HookPatch.load(patch).site.name == "language_model.layers.3"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.yaml", "selection.safetensors", "mean.patch.safetensors", "result.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "{folder}/clip"], "is no model that reads pictures and writes text, such as LLaVA or Qwen2-VL"),
        (["--model", "{folder}/none"], "none"),
        (["--table", "{folder}/none.csv"], "none.csv: cannot be read as a CSV table (no such file)"),
        (["--where", "{{split: [none]}}"], "where: no row of"),
        (["--without_people", "{{colour: [red]}}"], "without_people:"),
        (
            ["--attribute", "skin-tone", "--sentences", "gender"],
            "sentences: name a YAML file with texts about",
        ),
        (["--matched", "colour"], "has no column 'colour'"),
        (["--k", "29"], "k: expected at most 28, as many as there are texts, got 29"),
        (["--layers", "[5]"], "layers: the model has 4, got 5"),
        (["--choice.words", "[[firefighter], [he]]"], "choice.words: none of firefighter is one token"),
        (["--sentences", "{folder}/config.yaml"], "expected pairs: lists of two words"),
        (["--attribute", "none"], "attribute none: is none of"),
        (["--alpha", "0"], "alpha: expected a number other than 0"),
        (["--device", "nowhere", "--seed", "1"], "device nowhere"),
        (["--output", "{folder}/pictures"], "pictures"),
        (["--patch", "{folder}/config.yaml"], "config.yaml"),
        (["--measure", "false", "--shuffles", "3"], "--shuffles does not apply without measuring"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(folder, options, said, capsys):
    before = files(folder)
    asked = [option.format(folder=folder) for option in options]
    assert directions(folder, "edit", *asked) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert {name: content for name, content in files(folder).items() if "texts/" not in name} == {
        name: content for name, content in before.items() if "texts/" not in name
    }
