"""Edits by a contrast: what one model has and another has not, added to a third."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from architectures import MADE, logits, saved
from causal_models import saved as saved_causal
from conftest import write_config
from peft import PeftModel

import lce
from lce.cli import main
from lce.localize.selection import Selection
from lce.models.layers import is_prunable
from lce.patch import Patch

MODELS = {"target": 0, "from": 1, "to": 2}


def contrast(folder: Path, *options: str, output: str = "result") -> int:
    """The status of `lce edit` on three folders, measuring nothing."""
    names = [str(folder / name) for name in MODELS]
    where = ["--output", str(folder / output), "--measure", "false", "--patch", str(folder / f"{output}.safetensors")]
    return main(["edit", names[0], "--contrast", *names[1:], *where, *options])


@pytest.mark.parametrize("kind", MADE)
def test_what_the_second_has_and_the_first_has_not_is_added(kind: str, chunk: None, tmp_path: Path) -> None:
    models = {name: saved(kind, tmp_path / name, seed) for name, seed in MODELS.items()}
    assert contrast(tmp_path, "--count", "40", "--alpha", "3", "--edited", str(tmp_path / "edited")) == 0
    weights = {name: {n: p.detach() for n, p in model.named_parameters()} for name, model in models.items()}
    differences = {n: weights["to"][n] - weights["from"][n] for n, p in weights["target"].items()
                   if is_prunable(n, tuple(p.shape))}  # fmt: skip
    least = torch.cat([d.abs().flatten() for d in differences.values()]).sort(descending=True).values[39]
    edited = type(models["target"]).from_pretrained(tmp_path / "edited")
    changed = 0
    for name, parameter in edited.named_parameters():
        expected = weights["target"][name].clone()
        if name in differences:
            chosen = differences[name].abs() >= least
            expected[chosen] += 3 * differences[name][chosen]
            changed += int(chosen.sum())
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(parameter == weights["target"][name], expected == weights["target"][name])
    assert changed == 40
    patched = lce.from_pretrained(str(tmp_path / "target"), patch=str(tmp_path / "result.safetensors"))
    assert torch.equal(logits(patched), logits(edited))
    record = Patch.load(tmp_path / "result.safetensors").provenance
    assert record["contrast"] == [str(tmp_path / name) for name in ("from", "to")]
    assert "reference" not in record


def test_small_steps_are_not_lost_in_16_bits(tmp_path: Path) -> None:
    """A step that rounds to nothing at α = 1 is made at the α that is asked for."""
    target = saved("llama", tmp_path / "target", 0, torch.bfloat16)
    first = saved("llama", tmp_path / "from", 1)
    second = saved("llama", tmp_path / "to", 1)
    with torch.no_grad():
        for name, parameter in second.named_parameters():
            if is_prunable(name, tuple(parameter.shape)):
                parameter.add_(target.get_parameter(name).float() / 1000)
    second.save_pretrained(tmp_path / "to")
    options = ["--share", "1", "--alpha", "100", "--edited", str(tmp_path / "edited")]
    assert contrast(tmp_path, *options) == 0
    edited = type(target).from_pretrained(tmp_path / "edited", dtype=torch.bfloat16)
    for name, parameter in edited.named_parameters():
        if is_prunable(name, tuple(parameter.shape)):
            expected = target.get_parameter(name).float() * 1.1
            torch.testing.assert_close(parameter.float(), expected, rtol=2**-7, atol=1e-4)
    assert first.get_parameter(name).dtype == torch.float32


def test_a_saved_selection_of_the_two_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in MODELS.items():
        saved("llama", tmp_path / name, seed)
    file = tmp_path / "selection.safetensors"
    names = [str(tmp_path / name) for name in ("from", "to")]
    assert main(["localize", *names, "--count", "30", "--output", str(file)]) == 0
    together = [str(tmp_path / "target"), "--contrast", *names, "--count", "30"]
    assert main(["localize", *together, "--output", str(tmp_path / "together.safetensors")]) == 0
    found = Selection.load(tmp_path / "together.safetensors")
    assert {name: found.indices[name].tolist() for name in found.shapes} == {
        name: indices.tolist() for name, indices in Selection.load(file).indices.items()
    }
    assert contrast(tmp_path, "--selection", str(file)) == 0
    assert Patch.load(tmp_path / "result.safetensors").count == Selection.load(file).count == 30
    assert main(["localize", *reversed(names), "--count", "30", "--output", str(file)]) == 0
    assert contrast(tmp_path, "--selection", str(file), output="other") == 2
    assert "was made for other models" in capsys.readouterr().err


def test_the_two_may_name_their_tensors_otherwise_than_the_target(tmp_path: Path) -> None:
    models = {name: saved("llama", tmp_path / name, seed) for name, seed in MODELS.items()}
    assert contrast(tmp_path, "--count", "40") == 0
    for name in ("from", "to"):
        models[name].base_model.save_pretrained(tmp_path / name)  # without the head, and the prefix "model."
    assert contrast(tmp_path, "--count", "40", output="other") == 0
    first, second = (
        lce.from_pretrained(str(tmp_path / "target"), patch=str(tmp_path / f"{name}.safetensors"))
        for name in ("result", "other")
    )
    assert torch.equal(logits(first), logits(second))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reference", "x"], "--reference does not apply together with --contrast"),
        (["--strategy", "pruning"], "--contrast does not apply to pruning"),
    ],
)
def test_what_makes_no_sense_with_a_contrast_is_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert contrast(tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


def test_a_contrast_needs_two_different_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edit", "A", "--contrast", "B", "B"]) == 2
    assert "contrast: expected two different models, FROM and TO, got ['B', 'B']" in capsys.readouterr().err
    assert main(["edit", "A", "C", "--contrast", "B", "D"]) == 2
    assert "expected TARGET, or none; got A C" in capsys.readouterr().err


def test_a_contrast_is_measured_against_random_baselines(
    tmp_path: Path, sentences_file: Path, benchmarks: Path
) -> None:
    for name, seed in MODELS.items():
        saved_causal("qwen2", tmp_path / name, seed)
    config = write_config(tmp_path, tmp_path / "target", sentences_file, benchmarks.parent)
    names = [str(tmp_path / name) for name in MODELS]
    options = ["--config", str(config), "--evaluation.limit", "4", "--share", "0.1", "--alpha", "1", "2"]
    output = ["--output", str(tmp_path / "result")]
    assert main(["edit", names[0], "--contrast", *names[1:], *options, *output]) == 0
    result = json.loads((tmp_path / "result/result.json").read_text(encoding="utf-8"))
    for edit in result["edits"]:
        row = edit["scores"]["occupation_pronouns"]
        assert row["reference"] is None
        assert len(row["uninformed_draws"]) == 2
        assert len({row["before"], row["after"], *row["uninformed_draws"]}) == 4
    assert (tmp_path / "result/alpha.png").exists()


def test_the_patch_of_a_contrast_goes_to_peft_and_to_another_strength(tmp_path: Path) -> None:
    models = {name: saved("llama", tmp_path / name, seed) for name, seed in MODELS.items()}
    assert contrast(tmp_path, "--count", "40", "--alpha", "3") == 0
    patch = str(tmp_path / "result.safetensors")
    target = str(tmp_path / "target")
    assert main(["patch", "to-peft", target, "--patch", patch, "--out", str(tmp_path / "adapter")]) == 0
    adapted = PeftModel.from_pretrained(models["target"], str(tmp_path / "adapter"))
    patched = lce.from_pretrained(target, patch=patch)
    torch.testing.assert_close(logits(adapted), logits(patched), rtol=1e-5, atol=1e-5)
    assert contrast(tmp_path, "--count", "40", "--alpha", "1", output="one") == 0
    scaled = str(tmp_path / "scaled.safetensors")
    assert main(["patch", "scale", "--patch", patch, "--alpha", "1", "--out", scaled]) == 0
    one = lce.from_pretrained(target, patch=str(tmp_path / "one.safetensors"))
    assert torch.equal(logits(lce.from_pretrained(target, patch=scaled)), logits(one))
