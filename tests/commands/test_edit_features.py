"""`lce localize features` and `lce edit features`, from the command line to the files, on the planted model."""

from __future__ import annotations

import json
from pathlib import Path

import planted
import pytest
import torch
import yaml
from feature_runs import configured, features
from patches import files

from lce.cli import main
from lce.localize.selection import Selection
from lce.metrics.occupation_pronouns import OCCUPATIONS
from lce.patch.hooks import HookPatch
from lce.patch.loading import from_pretrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return configured(tmp_path_factory.mktemp("features"))


def last_line(capsys):
    return Path(capsys.readouterr().out.rstrip("\n").splitlines()[-1])


@pytest.fixture(scope="module")
def edited(folder):
    """The path of the result of an edit with those settings, and what was printed."""
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as printed:
        assert features(folder, "edit") == 0
    return Path(printed.getvalue().rstrip("\n").splitlines()[-1]), printed.getvalue()


@pytest.fixture
def result(edited):
    return json.loads(edited[0].read_text(encoding="utf-8"))


def test_localize_writes_a_selection_of_the_planted_features(folder, tmp_path, capsys):
    assert features(folder, "localize", "--output", tmp_path / "s.safetensors") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(tmp_path / "s.safetensors")
    selection = Selection.load(tmp_path / "s.safetensors")
    (site,) = selection.shapes
    assert selection.indices[site].tolist() == [planted.MALE, planted.FEMALE]
    assert [row["side"] for row in selection.details[site]] == ["male", "female"]
    assert yaml.safe_load((tmp_path / "s.yaml").read_text(encoding="utf-8"))["rule"] == "counts"
    assert all(f"│ {number:>7} │ " in printed for number in (planted.MALE, planted.FEMALE))
    assert features(folder, "localize", "--rule", "difference", "--count", "1") == 0
    default = last_line(capsys)
    assert default == folder / "run/selections/model-sae-difference.safetensors"
    assert Selection.load(default).count == 1


def test_the_result_holds_checks_and_files(edited, result):
    path, printed = edited
    assert printed.rstrip("\n").splitlines()[-1] == str(path)
    assert set(result["checks"]) == {"F1", "F2", "F3", "F4", "F5", "F6"}
    for check in result["checks"].values():
        assert {"what", "value", "interval", "n", "bar", "holds"} <= set(check)
    assert [name for name, check in result["checks"].items() if not check["holds"]] == []
    assert Path(result["patch"]).is_file()
    assert Path(result["model"]).is_dir()
    assert Selection.load(Path(result["selection"])).count == 2
    assert result["rerun"] == {"command": "edit features", "config": str(path.parent / "config.yaml")}
    assert [row["feature"] for row in result["features"]] == [planted.MALE, planted.FEMALE]
    assert {row["occupation"] for row in result["occupations"]} == set(OCCUPATIONS)
    special = result["measured_with"]["special_cases"]
    assert special == {}
    for row in result["edits"]:
        assert (row["patch"] is None) == row["name"].startswith(("random", "matched"))
        assert row["patch"] is None or HookPatch.load(row["patch"]).provenance["scores"]


def test_what_is_planted_is_taken_out_and_nothing_else_is(result):
    closed = {(row["name"], row["strength"]): row["closed"] for row in result["edits"]}
    assert result["before"]["occupation_pronouns_held_out"]["value"] > 1
    for name, strength in (("counts", 0), ("attribution", 0), ("direction occupations", 1)):
        assert closed[name, strength]["value"] == pytest.approx(1, abs=1e-3)
        assert closed[name, strength]["interval"] == pytest.approx([1, 1], abs=1e-3)
        assert closed[name, strength]["n"] == len(OCCUPATIONS)
    assert 0.1 < closed["counts", 0.5]["value"] < 0.9
    controls = [key for key in closed if key[0].startswith(("random", "matched"))]
    assert len(controls) == 2 * 2 * 2
    for key in controls:
        assert abs(closed[key]["value"]) < 0.1, key


def test_the_patch_that_is_kept_is_the_best_edit_of_features(result):
    best = HookPatch.load(result["patch"])
    (row,) = (row for row in result["edits"] if row["patch"] == result["patch"])
    assert {"name": row["name"], "strength": row["strength"]} == result["best"]
    assert row["perplexity_change"] < 5
    gaps = {
        one["patch"]: abs(one["scores"]["occupation_pronouns"]["value"])
        for one in result["edits"]
        if one["patch"] and one["perplexity_change"] < 5 and not one["name"].startswith("direction")
    }
    assert gaps[result["patch"]] == min(gaps.values())
    assert {name: test["n"] for name, test in row["against"].items()} == dict.fromkeys(
        ("random 1", "random 2", "matched 1", "matched 2"), 40
    )
    assert all(test["tests"][0]["p_value"] < 0.001 for test in row["against"].values())
    said = best.provenance["scores"]["occupation_pronouns_held_out"]
    assert said == {
        "before": result["before"]["occupation_pronouns_held_out"]["value"],
        "after": row["scores"]["occupation_pronouns_held_out"]["value"],
    }
    patched = from_pretrained(result["model"], patch=best.file)
    ids = planted.tokenizer()("The plumber said that", return_tensors="pt")
    with torch.inference_mode():
        he, she = (patched(**ids).logits[0, -1, planted.tokenizer().get_vocab()[word]] for word in ("he", "she"))
    assert float(he - she) == pytest.approx(0, abs=1e-3)


def test_the_page_and_the_figures_name_the_features(edited, result):
    path, printed = edited
    page = (path.parent / "report.html").read_text(encoding="utf-8")
    for text in (f"Feature {planted.MALE}, male side", f"Feature {planted.FEMALE}, female side", "crane operator"):
        assert text in page
    assert page.count("<svg") == 2
    for name in ("curve.png", "occupations.png"):
        assert (path.parent / name).read_bytes().startswith(b"\x89PNG")
    for text in ("unedited", "direction occupations", "matched 2", "held out [nats]", "F6", result["patch"]):
        assert text in " ".join(printed.split())


def test_the_same_again_makes_nothing_and_other_settings_go_elsewhere(folder, edited, capsys):
    before = files(edited[0].parent)
    made = edited[0].stat().st_mtime_ns
    assert features(folder, "edit") == 0
    assert last_line(capsys) == edited[0]
    assert main(["edit", "features", "--config", str(edited[0].parent / "config.yaml")]) == 0
    assert last_line(capsys) == edited[0]
    assert edited[0].stat().st_mtime_ns == made
    few = ["--scale", "0", "--compare", "[]", "--directions", "[]", "--random_baselines", "0"]
    assert features(folder, "edit", *few) == 0
    other = last_line(capsys)
    assert other.parent.parent == edited[0].parent.parent
    assert other != edited[0]
    checks = json.loads(other.read_text(encoding="utf-8"))["checks"]
    assert [name for name, check in checks.items() if not check["holds"]] == ["F3", "F4", "F6"]
    assert files(edited[0].parent) == before


def test_the_same_settings_elsewhere_give_the_same_bytes(folder, edited, tmp_path, capsys):
    assert features(folder, "edit", "--output", tmp_path / "out") == 0
    assert last_line(capsys) == tmp_path / "out/result.json"
    first, second = files(edited[0].parent), files(tmp_path / "out")
    assert set(first) == set(second)
    for name, content in second.items():
        if name.endswith(".safetensors"):
            assert content == first[name], name
    moved = second["result.json"].replace(str(tmp_path / "out").encode(), str(edited[0].parent).encode())
    assert moved == first["result.json"]
    assert features(folder, "edit", "--output", tmp_path / "out", "--seed", "1") == 2
    assert "holds the result of other settings or models" in capsys.readouterr().err
    assert files(tmp_path / "out") == second


def test_a_patch_goes_where_it_is_wanted_measured_or_not(folder, tmp_path, capsys):
    few = ["--scale", "0", "--compare", "[]", "--directions", "[]", "--random_baselines", "0"]
    unmeasured = ["--measure", "false", "--scale", "0"]
    for options, name in ((few, "new/one"), (unmeasured, "two"), (unmeasured, "three")):
        assert features(folder, "edit", *options, "--patch", tmp_path / name) == 0
        found = json.loads(last_line(capsys).read_text(encoding="utf-8"))
        assert found["patch"] == str(tmp_path / name)
        assert HookPatch.load(tmp_path / name).provenance["features"] == [planted.MALE, planted.FEMALE]
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    assert features(folder, "edit", *few, "--patch", tmp_path / "mine") == 2
    assert "mine: exists and is not a patch made by lce" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"


def test_directions_are_tried_at_other_sites_too(folder, capsys):
    """The second layer does nothing, so the direction is there as well; before the first, nothing is mixed yet."""
    few = ["--scale", "0", "--compare", "[]", "--directions", "[occupations]", "--random_baselines", "0"]
    assert features(folder, "edit", *few, "--direction_sites", "[layers.1, layers.0]") == 0
    found = json.loads(last_line(capsys).read_text(encoding="utf-8"))
    closed = {row["name"]: row["closed"]["value"] for row in found["edits"][1:]}
    assert list(closed) == [f"direction occupations{place}" for place in (" at layers.1", "")]
    assert closed["direction occupations at layers.1"] == pytest.approx(1, abs=1e-3)
    assert closed["direction occupations"] == pytest.approx(1, abs=1e-3)
    sites = {HookPatch.load(row["patch"]).site.name for row in found["edits"]}
    assert sites == {"layers.0", "layers.1"}
    assert features(folder, "edit", *few, "--direction_sites", "['layers.0:input']") == 2
    assert "direction occupations: there is none" in capsys.readouterr().err


def test_without_measuring_there_are_patches_alone(folder, tmp_path, capsys):
    assert features(folder, "edit", "--measure", "false", "--scale", "0.3", "--output", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    names = ["counts-0.3", "attribution-0.3", "direction-occupations-1", "direction-pronouns-1"]
    wanted = [f"{tmp_path}/out/{name}.patch.safetensors" for name in names]
    found = json.loads((tmp_path / "out/result.json").read_text(encoding="utf-8"))
    assert (found["edits"], found["patches"], found["patch"]) == ([], wanted, wanted[0])
    assert f"patches: {', '.join(wanted)}" in printed
    assert [path for path in wanted if HookPatch.load(path).count not in (1, 2)] == []
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".safetensors", ".yaml", ".json"}


def test_snippets_of_held_out_text_are_shown_as_they_stand_there(folder, tmp_path, capsys):
    texts = [f"The {job} [/b] told me that he met the nurse before the plumber." for job in OCCUPATIONS]
    (tmp_path / "corpus.txt").write_text("\n".join(texts), encoding="utf-8")
    corpus = {"source": "files", "files": [str(tmp_path / "corpus.txt")]}
    settings = {"snippets": 30, "data": {"folder": str(tmp_path), "corpus": corpus, "evaluation_fraction": 0.4}}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    more = ["--config", tmp_path / "more.yaml", "--output"]
    assert features(folder, "localize", *more, tmp_path / "s.safetensors") == 0
    printed = capsys.readouterr().out
    (rows,) = Selection.load(tmp_path / "s.safetensors").details.values()
    for row in rows:
        activations = [snippet["activation"] for snippet in row["snippets"]]
        assert activations == sorted(activations, reverse=True)
        assert 1 < len(activations) <= 10
        assert f"[{row['snippets'][0]['token']}] [/b] told" in printed
    few = ["--scale", "0", "--compare", "[]", "--directions", "[]", "--random_baselines", "0"]
    assert features(folder, "edit", *more, tmp_path / "out", *few) == 0
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for row in rows:
        assert f"<mark>{row['snippets'][0]['token']}</mark> [/b] told me" in page
    assert json.loads((tmp_path / "out/result.json").read_text(encoding="utf-8"))["features"] == rows
