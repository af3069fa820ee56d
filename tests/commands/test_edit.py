"""Localising and editing two models on their files, against the same thing done in memory with whole models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from architectures import MADE, logits, saved
from pairs import flat, matrices, pair
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

import lce
from lce.cli import main
from lce.localize.selection import Selection
from lce.models.layers import is_prunable
from lce.patch import Patch
from lce.storage.changes import step


def edit(folder: Path, *options: str, models: tuple[str, str] = ("target", "reference"), output: str = "result") -> int:
    """The status of `lce edit` on two folders, measuring nothing."""
    where = ["--output", str(folder / output), "--measure", "false"]
    return main(["edit", *(str(folder / name) for name in models), *where, *options])


@pytest.mark.parametrize("strategy", ["extrapolation", "pruning", "mask-switch"])
@pytest.mark.parametrize("kind", MADE)
def test_an_edit_by_files_is_the_edit_of_the_model(kind: str, strategy: str, chunk: None, tmp_path: Path) -> None:
    target, reference = pair(kind, tmp_path)
    paths = [str(tmp_path / name) for name in ("target", "reference", "edited", "p.safetensors", "s.safetensors")]
    localization = ["--localization", "mask"] if strategy == "mask-switch" else ["--count", "50"]
    assert main(["localize", *paths[:2], *localization, "--output", paths[4]]) == 0
    options = ["--selection", paths[4], "--strategy", strategy]
    options += ["--alpha", "2"] if strategy == "extrapolation" else []
    assert edit(tmp_path, *options, "--edited", paths[2], "--patch", paths[3]) == 0

    selection = Selection.load(Path(paths[4]))
    cut = (flat(matrices(reference, tmp_path / "target")).abs().sort().values)[: round(0.3 * selection.size)][-1]
    changed = 0
    for name in selection.shapes:
        weight, other = target.get_parameter(name).data.view(-1), reference.get_parameter(name).data.view(-1)
        chosen = selection.indices[name]
        before = weight[chosen].clone()
        weight[chosen] = {
            "extrapolation": step(before, other[chosen], 2.0),
            "pruning": torch.zeros(len(chosen)),
            "mask-switch": before * (other[chosen].abs() > cut),
        }[strategy]
        changed += int((weight[chosen] != before).sum())
    edited = type(target).from_pretrained(paths[2])
    for name, parameter in edited.named_parameters():
        assert torch.equal(parameter, target.get_parameter(name)), name
    assert torch.equal(logits(edited), logits(target))
    assert Patch.load(paths[3]).count == changed > 0
    assert torch.equal(logits(lce.from_pretrained(paths[0], patch=paths[3])), logits(target))

    assert main(["patch", "revert", paths[2], "--patch", paths[3], "--out", str(tmp_path / "back")]) == 0
    for path in (tmp_path / "target").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_tied_weights_are_edited_in_all_their_copies(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 1)):
        saved("bert", tmp_path / folder, seed)
        path = tmp_path / folder / "model.safetensors"
        tensors = load_file(path)
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
        save_file(tensors, path, metadata={"format": "pt"})
    options = ["--tensors", "[embeddings, decoder]", "--count", "100", "--edited", str(tmp_path / "out")]
    assert edit(tmp_path, *options, models=("a", "b")) == 0
    edited = load_file(tmp_path / "out/model.safetensors")
    words = edited["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(edited["cls.predictions.decoder.weight"], words)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert torch.equal(model.get_output_embeddings().weight, words)
    assert not torch.equal(words, load_file(tmp_path / "a/model.safetensors")["bert.embeddings.word_embeddings.weight"])


def test_a_reference_in_another_precision(tmp_path: Path) -> None:
    target = saved("llama", tmp_path / "a", 0, torch.bfloat16)
    reference = saved("llama", tmp_path / "b", 1, torch.float32)
    options = ["--alpha", "1", "--share", "1", "--edited", str(tmp_path / "out")]
    assert edit(tmp_path, *options, models=("a", "b")) == 0
    edited = type(target).from_pretrained(tmp_path / "out")
    for name in matrices(target, tmp_path / "a"):
        expected = reference.get_parameter(name).bfloat16()
        torch.testing.assert_close(edited.get_parameter(name), expected, rtol=2**-7, atol=1e-6)


def test_all_weights_at_alpha_1_are_the_reference_to_the_bit(tmp_path: Path) -> None:
    """Not only where the two are near each other: θ_t + 1 (θ_r − θ_t) would lose small θ_r beside large θ_t."""
    target, reference = pair("llama", tmp_path)
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if is_prunable(name, tuple(parameter.shape)):
                parameter.mul_(1e6)
    target.save_pretrained(tmp_path / "target")
    assert edit(tmp_path, "--alpha", "1", "--share", "1", "--edited", str(tmp_path / "out")) == 0
    edited = type(target).from_pretrained(tmp_path / "out")
    for name, parameter in edited.named_parameters():
        if is_prunable(name, tuple(parameter.shape)):
            assert torch.equal(parameter, reference.get_parameter(name)), name


def test_the_same_command_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    pair("qwen2", tmp_path)
    for name in ("one", "two"):
        assert edit(tmp_path, "--patch", str(tmp_path / f"{name}.safetensors"), output=name) == 0
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch", "{}/p", "--alpha", "0"], "alpha: 0 changes nothing"),
        (["--patch", "{}/p", "--alpha", "1", "2"], "patch: is made for one α, got 2"),
        (["--patch", "{}/p", "--alpha", "nan"], "Got value: nan"),
        (["--patch", "{}/p", "--alpha", "1e39"], "not finite"),
        (["--patch", "{}/p", "--share", "0"], "share: expected"),
        (["--patch", "{}/p", "--share", "1.5"], "share: expected"),
        (["--patch", "{}/p", "--count", "0"], "count: expected"),
        (["--patch", "{}/p", "--localization", "mask", "--sparsity", "1.0"], "sparsity: expected"),
        (["--patch", "{}/p", "--strategy", "mask-switch", "--localization", "value"], "needs a mask-based selection"),
        (["--patch", "{}/p", "--tensors", "[nothing]"], "no such tensor in common"),
        (["--patch", "{}/p", "--tensors", "['(']"], "'\\(' is no regular expression"),
        (["--patch", "{}/p", "--share", ".inf"], "share: expected|Got value"),
        (["--patch", "{}/p", "--localization", "mask", "--sparsity", "2"], "sparsity: expected"),
        (["--edited", "{}/target"], "target: exists already"),
        (["--edited", "{}/target/inside"], "lies inside of"),
        (["--edited", "{}/out", "--patch", "{}/out/p"], "lies in the --edited folder"),
        (["--patch", "."], "is not a patch made by lce"),
        (["--patch", "{}/new/p", "--count", "0"], "count: expected"),
        (["--patch", "{}/target/config.json/p"], "cannot be written"),
        (["--patch", "{}/p", "--selection", "{}/none"], "none: cannot be read"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    options: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pair("llama", tmp_path)
    present = sorted(tmp_path.rglob("*"))
    given = [option.replace("{}", str(tmp_path)) for option in options]
    capfd.readouterr()
    assert edit(tmp_path, *given) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lce: error:")]
    assert len(errors) == 1
    assert any(part in errors[0] for part in message.replace("\\", "").split("|"))
    assert sorted(tmp_path.rglob("*")) == present


def test_the_patch_may_be_named_like_the_model(tmp_path: Path) -> None:
    pair("llama", tmp_path)
    out = str(tmp_path / "EDITED")
    assert edit(tmp_path, "--count", "10", "--edited", out, "--patch", f"{out}.patch.safetensors") == 0
    assert {path.name for path in tmp_path.glob("*EDITED*")} == {"EDITED", "EDITED.patch.safetensors"}
    assert not list(tmp_path.glob(".*"))


def test_pairs_that_do_not_fit_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pair("llama", tmp_path)
    saved("llama", tmp_path / "pruned", 1)
    quantised = load_file(tmp_path / "pruned/model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    for folder, tensor in (("int8", quantised[name].char()), ("nan", quantised[name] * float("nan"))):
        (tmp_path / folder).mkdir()
        save_file(quantised | {name: tensor}, tmp_path / folder / "model.safetensors")
    for reference, message in (
        ("target", "are the same model"),
        ("int8", f"{name} is of type I8; lce compares float32, float16 and bfloat16"),
        ("nan", f"{name}: holds a value that is not finite"),
        ("missing", "no such folder"),
    ):
        command = ["localize", str(tmp_path / "target"), str(tmp_path / reference), "--output", str(tmp_path / "s")]
        assert main(command) == 2
        assert message in capfd.readouterr().err
    selection = tmp_path / "s.safetensors"
    assert main(["localize", str(tmp_path / "target"), str(tmp_path / "pruned"), "--output", str(selection)]) == 0
    saved("llama", tmp_path / "third", 3)
    assert edit(tmp_path, "--selection", str(selection), models=("target", "third")) == 2
    assert "made for other models" in capfd.readouterr().err


def test_a_tensor_of_one_model_only_is_listed_and_may_be_skipped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pair("llama", tmp_path)
    path = tmp_path / "reference/model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert edit(tmp_path, "--patch", str(tmp_path / "p")) == 2
    assert "has model.layers.1.mlp.up_proj.weight; to leave" in capfd.readouterr().err
    assert edit(tmp_path, "--patch", str(tmp_path / "p"), "--skip_unmatched", "true") == 0
    assert "model.layers.1.mlp.up_proj.weight" not in Patch.load(tmp_path / "p").parameters


def test_provenance_says_where_a_patch_comes_from(tmp_path: Path) -> None:
    pair("gpt2", tmp_path)
    options = ("--strategy", "interpolation", "--alpha", "0.5")
    assert edit(tmp_path, "--patch", str(tmp_path / "p"), *options, output="one") == 0
    provenance = Patch.load(tmp_path / "p").provenance
    assert provenance["target"] == str(tmp_path / "target")
    assert (provenance["strategy"], provenance["alpha"], provenance["localization"]) == ("interpolation", 0.5, "value")
    assert provenance["selected"]["share"] == pytest.approx(0.1, rel=1e-3)
    assert json.dumps(provenance)
    assert edit(tmp_path, "--patch", str(tmp_path / "p"), "--localization", "mask", output="two") == 0
    provenance = Patch.load(tmp_path / "p").provenance
    assert (provenance["masks"], provenance["sparsity"]) == ("one-shot magnitude", 0.3)


def test_a_selection_brings_its_own_tensors_and_its_masks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pair("llama", tmp_path)
    models, selection = [str(tmp_path / name) for name in ("target", "reference")], str(tmp_path / "s")
    assert (
        main(["localize", *models, "--tensors", "[embed, head]", "--localization", "mask", "--output", selection]) == 0
    )
    options = ["--selection", selection, "--strategy", "mask-switch", "--patch", str(tmp_path / "p")]
    assert edit(tmp_path, *options, "--sparsity", "0.5") == 2
    assert "made with other masks; give the sparsity" in capfd.readouterr().err
    assert edit(tmp_path, *options) == 0
    assert set(Patch.load(tmp_path / "p").parameters) == {"model.embed_tokens.weight", "lm_head.weight"}
    assert main(["localize", *models, "--output", str(tmp_path / "s.png")]) == 2
    assert "is the name that a heat map beside it gets" in capfd.readouterr().err


def test_a_selection_that_settings_name_is_taken_from_python_too(tmp_path: Path) -> None:
    pair("llama", tmp_path)
    models = [tmp_path / name for name in ("target", "reference")]
    embeddings = lce.EditSettings(tensors=["embed"], count=7)
    lce.select(lce.open_pair(*models, embeddings), embeddings, tmp_path / "s")
    named = lce.EditSettings(selection=str(tmp_path / "s"))
    found = lce.select(lce.open_pair(*models, named), named)
    assert {name: count for name, count in found.counts.items() if count} == {"model.embed_tokens.weight": 7}


def test_without_scores_no_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair("llama", tmp_path)
    assert edit(tmp_path, "--count", "7") == 0
    printed = capsys.readouterr().out
    assert "linear, α = 2, value-based, seed 0\nweights edited: 7 " in printed
    assert "target before" not in printed
