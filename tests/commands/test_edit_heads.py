"""`lce localize heads` and `lce edit heads`, from the command line to the files, on the planted model."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from clips import HEADS, LAYERS, PLANTED, embeddings, planted
from head_audits import configured, heads
from painted import SHAPES, paint
from patches import files
from transformers import AutoImageProcessor, CLIPModel

from lce.cli import main
from lce.data.pictures.loading import read_picture
from lce.localize.selection import Selection
from lce.metrics.group_association import ACCURACY, CORRECTED_V, LEAN, V
from lce.patch import Patch

MEASURES = {LEAN, V, CORRECTED_V, ACCURACY}
SITE = f"vision_model.encoder.layers.{PLANTED[0]}.heads"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    clip = planted(folder)
    paint(folder / "pictures")
    (folder / "pictures/CREDIT.txt").write_text("Drawn by nobody & all", encoding="utf-8")
    return configured(folder, clip.name, matched="scene", compared={"skin-tone": "subject"}, views=2)


@pytest.fixture(scope="module")
def edited(folder):
    """The path of the result of an edit with those settings, and what was printed."""
    with redirect_stdout(StringIO()) as printed:
        assert heads(folder, "edit") == 0
    return Path(printed.getvalue().rstrip("\n").splitlines()[-1]), printed.getvalue()


@pytest.fixture
def result(edited):
    return json.loads(edited[0].read_text(encoding="utf-8"))


def last_line(capsys):
    return Path(capsys.readouterr().out.rstrip("\n").splitlines()[-1])


def test_localize_writes_a_selection_of_the_planted_head(folder, tmp_path, capsys):
    assert heads(folder, "localize", "--output", tmp_path / "s.safetensors") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(tmp_path / "s.safetensors")
    assert "selected heads" in printed
    selection = Selection.load(tmp_path / "s.safetensors")
    assert (selection.kind, selection.count, selection.indices[SITE].tolist()) == ("head", 1, [PLANTED[1]])
    [row] = selection.details[SITE]
    assert (row["layer"], row["head"], row["rank"]) == (*PLANTED, 1)
    assert yaml.safe_load((tmp_path / "s.yaml").read_text(encoding="utf-8"))["size"] == 1
    assert heads(folder, "localize", "--size", "2", "--rank", "6") == 0
    default = last_line(capsys)
    assert default == folder / "run/selections/planted-gender-2.safetensors"
    assert Selection.load(default).count == 2


def test_the_result_holds_checks_and_files(edited, result):
    path, printed = edited
    assert printed.rstrip("\n").splitlines()[-1] == str(path)
    assert {"H1", "H2", "H3", "H4"} <= set(result["checks"])
    for check in result["checks"].values():
        assert {"what", "value", "interval", "n", "bar", "holds"} <= set(check)
    assert (result["attribute"], result["groups"]) == ("gender", ["woman", "man"])
    assert Path(result["model"]).is_dir()
    assert Selection.load(Path(result["selection"])).indices[SITE].tolist() == [PLANTED[1]]
    assert [(row["layer"], row["head"]) for row in result["selected"]] == [PLANTED]
    assert len(result["heads"]) == LAYERS * HEADS
    assert result["rerun"] == {"command": "edit heads", "config": str(path.parent / "config.yaml")}
    assert set(result["patches"]) == {"mean", "zero", "projection"}
    assert result["patch"] == result["patches"]["mean"] == str(path.parent / "mean.patch.safetensors")
    about = Patch.open(result["patch"]).provenance
    assert about["scores"][LEAN]["before"] == result["before"]["scores"][LEAN]["value"]
    assert about["scores"][LEAN]["after"] == result["edits"][0]["scores"][LEAN]["value"]
    assert "NaN" not in path.read_text(encoding="utf-8")


def test_the_planted_bias_is_measured_and_taken_out(result):
    before, null = result["before"]["scores"], result["before"]["null"]
    assert before[LEAN]["value"] > null[LEAN]
    assert before[CORRECTED_V]["value"] > null[CORRECTED_V]
    assert before[LEAN]["p_value"] < 0.01
    assert before[LEAN]["n"] == result["before"]["pictures"] == 48
    assert result["before"]["views"] == 96
    assert {name: part[ACCURACY]["n"] for name, part in result["before"]["parts"].items()} == {
        "with a class": 36, "without a class": 0,
    }  # fmt: skip
    assert [(row["edit"], row["is_first_order"]) for row in result["edits"]] == [
        (edit, first) for edit in ("mean", "zero", "projection") for first in (False, True)
    ]
    for row in result["edits"]:
        assert row["heads"] == [list(PLANTED)]
        assert set(row["scores"]) == MEASURES
        assert set(row["differences"]) == MEASURES | {"max_skew"}
        low, high = row["reduced"][LEAN]["interval"]
        assert low <= row["reduced"][LEAN]["value"] <= high
        assert row["reduced"][LEAN]["value"] > (0.7 if row["is_first_order"] else 0.9)
        assert row["differences"][LEAN]["tests"][0]["p_value"] < 0.01
        assert row["max_skew"]["value"] <= result["before"]["max_skew"]["value"]
    assert result["edits"][0]["max_skew"]["value"] < result["before"]["max_skew"]["value"]
    checks = result["checks"]
    assert checks["H2"]["value"] > 0.9
    assert (checks["H3"]["value"], checks["H3"]["n"], checks["H3"]["holds"]) == (1.0, HEADS - 1, False), "too few sets"
    assert "weaker than by gender" in checks["H4"]["what"]
    assert sum(result["shares"].values()) == pytest.approx(1)
    assert set(checks["H4"]["others"]) == {"gender", "skin-tone"}


def test_single_heads_and_random_sets_are_measured_beside_it(result):
    for is_first_order in (False, True):
        singles = [row for row in result["singles"] if row["is_first_order"] == is_first_order]
        assert len(singles) == LAYERS * HEADS
        best = max(singles, key=lambda row: row["reduced"][LEAN])
        assert best["heads"] == [list(PLANTED)]
        random = [row["heads"] for row in result["random"] if row["is_first_order"] == is_first_order]
        assert random == [[[PLANTED[0], head]] for head in range(HEADS) if head != PLANTED[1]], "there are no more"
    for row in (*result["singles"], *result["random"]):
        assert row["reduced"][LEAN] < 0.2 or row["heads"] == [list(PLANTED)]


def test_classes_and_changed_predictions_are_told(result):
    assert [row["class"] for row in result["classes"]] == list(SHAPES)
    for when in ("before", "after"):
        for group in (0, 1):
            assert sum(row[when]["shares"][group] for row in result["classes"]) == pytest.approx(1)
        accuracy = sum(row[when]["accuracy"] for row in result["classes"]) / 3
        scores = result["before" if when == "before" else "edits"]
        scores = scores["scores"] if when == "before" else scores[0]["scores"]
        assert accuracy == pytest.approx(scores[ACCURACY]["value"]), "all classes have as many pictures"
    changes, n = result["changes"], 72
    kinds = [changes[kind] for kind in ("righted", "broken", "other")]
    assert 0 < changes["views"] == sum(kind["views"] for kind in kinds)
    assert all(kind["views"] == sum(row["views"] for row in kind["most_frequent"]) for kind in kinds)
    gained = (changes["righted"]["views"] - changes["broken"]["views"]) / n
    assert gained == pytest.approx(result["edits"][0]["differences"][ACCURACY]["value"])
    assert 0 < len(result["changed"]) <= 12
    assert all(row["before"] != row["after"] for row in result["changed"])


def test_the_patch_is_applied_by_lce_and_loaded_by_plain_transformers(folder, result, tmp_path):
    out = tmp_path / "out"
    assert main(["patch", "apply", result["model"], "--patch", result["patch"], "--out", str(out)]) == 0
    processor = AutoImageProcessor.from_pretrained(out)
    pictures = [read_picture(path) for path in sorted((folder / "pictures").glob("circle-*-light-0.png"))]
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    weaker, weak = tmp_path / "weaker.safetensors", tmp_path / "weak"
    scale = ["patch", "scale", "--patch", result["patch"], "--alpha", "0.5", "--out", str(weaker)]
    assert main(scale) == 0
    assert main(["patch", "apply", result["model"], "--patch", str(weaker), "--out", str(weak)]) == 0
    found = [embeddings(CLIPModel.from_pretrained(name), pixels) for name in (result["model"], weak, out)]
    apart = [float((woman - man).norm()) for woman, man in found]
    assert apart[0] > 0.5
    assert apart[2] < 0.2
    assert apart == sorted(apart, reverse=True), "half of the edit leaves something between"


def test_the_page_and_the_figures_show_it(edited, result):
    path, printed = edited
    page = (path.parent / "report.html").read_text(encoding="utf-8")
    for text in (
        f"Layer {PLANTED[0] + 1}, head {PLANTED[1]}",
        "Drawn by nobody &amp; all",
        "data:image/png;base64,",
        "<td>H2</td>",
    ):
        assert text in page
    assert page.count("<svg") == 3
    assert page.count("<figure>") == len(result["changed"])
    for name in ("scores.png", "singles.png", "null.png"):
        assert (path.parent / name).read_bytes().startswith(b"\x89PNG")
    for text in ("unedited", "projection, first-order", "3 random sets, true, mean", "H4", result["patch"]):
        assert text in " ".join(printed.split())


def test_the_same_again_makes_nothing_and_other_settings_go_elsewhere(folder, edited, capsys, monkeypatch):
    before, made = files(edited[0].parent), edited[0].stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("lce.commands.head_run.open_audit", None)
        assert heads(folder, "edit") == 0
        assert last_line(capsys) == edited[0]
        assert heads(folder, "edit", "--batch_size", "5", "--device", "auto") == 0
        assert last_line(capsys) == edited[0]
        assert main(["edit", "heads", "--config", str(edited[0].parent / "config.yaml")]) == 0
    assert last_line(capsys) == edited[0]
    assert edited[0].stat().st_mtime_ns == made
    assert heads(folder, "edit", "--edits", "[zero]", "--views", "1", "--compared", "{}", "--random_sets", "0") == 0
    other = last_line(capsys)
    assert other.parent.parent == edited[0].parent.parent
    assert other != edited[0]
    found = json.loads(other.read_text(encoding="utf-8"))
    assert "H4" not in found["checks"]
    assert not found["checks"]["H3"]["holds"]
    assert found["random"] == []
    assert not (other.parent / "null.png").exists()
    assert files(edited[0].parent) == before


def test_the_same_settings_elsewhere_give_the_same_bytes(folder, edited, tmp_path, capsys):
    assert heads(folder, "edit", "--output", tmp_path / "out") == 0
    assert last_line(capsys) == tmp_path / "out/result.json"
    first, second = files(edited[0].parent), files(tmp_path / "out")
    assert set(first) == set(second)
    for name, content in second.items():
        if name.endswith(".safetensors"):
            assert content == first[name], name
    moved = second["result.json"].replace(str(tmp_path / "out").encode(), str(edited[0].parent).encode())
    assert moved == first["result.json"]
    assert heads(folder, "edit", "--output", tmp_path / "out", "--seed", "1") == 2
    assert "holds the result of other settings or models" in capsys.readouterr().err
    assert files(tmp_path / "out") == second


def test_another_model_or_table_makes_another_result(folder, edited, capsys):
    few = ["--edits", "[mean]", "--measure", "false"]
    assert heads(folder, "edit", *few) == 0
    first = last_line(capsys)
    table = folder / "pictures/table.csv"
    content = table.read_bytes()
    table.write_bytes(content.replace(b"circle 0", b"circle zero"))
    try:
        assert heads(folder, "edit", *few) == 0
    finally:
        table.write_bytes(content)
    assert last_line(capsys) != first
    assert heads(folder, "edit", *few, "--model", folder / "random") == 0
    assert last_line(capsys).parent.name.startswith("random-gender-1-")


def test_a_patch_goes_where_it_is_wanted_measured_or_not(folder, tmp_path, capsys):
    patch = tmp_path / "mine.safetensors"
    few = ["--measure", "false", "--edits", "[projection, mean]", "--patch", patch, "--output", tmp_path / "out"]
    assert heads(folder, "edit", *few) == 0
    found = json.loads(last_line(capsys).read_text(encoding="utf-8"))
    assert found["patch"] == str(patch)
    assert found["checks"] == {}
    assert Patch.open(patch).provenance["strategy"] == "projection of heads"
    kept = tmp_path / "out/projection.patch.safetensors"
    assert torch.equal(*(torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in (patch, kept)))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.yaml", "selection.safetensors", "projection.patch.safetensors", "mean.patch.safetensors", "result.json",
    }  # fmt: skip
