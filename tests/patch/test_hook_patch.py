"""Hook patches: what is written is what is read, and it is applied to one base alone, by hooks that can be undone."""

from __future__ import annotations

import errno
from copy import deepcopy
from dataclasses import replace

import planted
import pytest
import torch
from hook_patches import SCORES, edits_of, logits, made_in, without_hooks
from patches import files

from lce.cli import main
from lce.foundations.errors import LceError
from lce.models.loading import load_language_model
from lce.patch.hooks import HookPatch
from lce.patch.loading import from_pretrained


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_in(tmp_path_factory.mktemp("hooks"))


@pytest.mark.parametrize("positions", ["all", "prompt"])
@pytest.mark.parametrize("kind", ["feature", "topk", "direction"])
def test_what_is_written_is_what_is_read(made, tmp_path, kind, positions):
    edit = replace(made.edits[kind], positions=positions)
    written = edit.patch(tmp_path / "p", {"scores": SCORES, "model": "planted"})
    read = HookPatch.load(tmp_path / "p")
    assert read.shift.numbers() == edit.shift.numbers() == written.shift.numbers()
    wanted, found = edit.shift.tensors(), read.shift.tensors()
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert (read.site, read.positions, read.base) == (edit.site, positions, edit.model)
    assert read.count == (1 if kind == "direction" else 2)
    said = dict(read.provenance)
    assert said.pop("library_version")
    assert said == {"scores": SCORES, "model": "planted", **edit.provenance}


@pytest.mark.parametrize("kind", ["feature", "topk", "direction"])
def test_a_patched_model_is_the_edited_one_and_so_are_its_copies(made, kind):
    patched = from_pretrained(made.base, patch=made.file(kind))
    plain = logits(made.model)
    with made.edits[kind].applied(made.model):
        edited = logits(made.model)
    assert torch.equal(logits(patched), edited)
    assert not torch.allclose(edited, plain, atol=1e-3)
    assert torch.equal(logits(deepcopy(patched)), edited)


@pytest.mark.parametrize("kind", ["feature", "direction"])
def test_a_patch_is_taken_back_bit_for_bit_and_its_copy_keeps_it(made, kind):
    model = planted.model().requires_grad_(False)
    plain = logits(model)
    take_back = HookPatch.load(made.file(kind)).apply_(model)
    edited, copy = logits(model), deepcopy(model)
    take_back()
    assert torch.equal(logits(model), plain)
    assert without_hooks(model)
    assert torch.equal(logits(copy), edited)
    assert not torch.equal(edited, plain)


def test_in_bfloat16_the_patch_is_the_edit_too(made, tmp_path):
    patch = HookPatch.load(made.file("feature"))
    narrow = planted.model()
    patch.apply_(narrow)
    narrow.bfloat16()
    patched = from_pretrained(made.base, patch=patch.file, dtype="bfloat16")
    assert {parameter.dtype for parameter in patched.parameters()} == {torch.bfloat16}
    assert logits(patched).dtype == torch.bfloat16
    assert torch.equal(logits(patched), logits(narrow))
    assert torch.allclose(logits(patched).float(), logits(from_pretrained(made.base, patch=patch.file)), atol=0.05)
    assert not torch.allclose(logits(patched).float(), logits(made.model), atol=0.5)


def test_for_a_base_stored_in_bfloat16_it_is_made_in_float32(made, tmp_path):
    planted.model().bfloat16().save_pretrained(tmp_path / "base")
    planted.tokenizer().save_pretrained(tmp_path / "base")
    wide, _ = load_language_model(tmp_path / "base")
    patch = edits_of(wide)["feature"].patch(tmp_path / "p")
    patched = from_pretrained(tmp_path / "base", patch=patch.file)
    assert {parameter.dtype for parameter in patched.parameters()} == {torch.bfloat16}
    with patch.applied(wide):
        assert torch.allclose(logits(patched).float(), logits(wide), atol=0.05)
    with pytest.raises(LceError, match=r"its weights are not those of the model that feature.safetensors was made for"):
        from_pretrained(tmp_path / "base", patch=made.file("feature"))


def test_another_base_is_refused_in_one_line(made, tmp_path):
    other = planted.model()
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight[3, 4] += 1e-6
    other.save_pretrained(tmp_path / "other")
    patch = HookPatch.load(made.file("direction"))
    for use in (
        lambda: from_pretrained(tmp_path / "other", patch=patch.file),
        lambda: patch.apply_(other),
        lambda: patch.applied(other).__enter__(),
    ):
        with pytest.raises(LceError, match=r"its weights are not those of the model") as error:
            use()
        assert "\n" not in str(error.value)
    assert without_hooks(other)


def test_a_patch_replaces_a_patch_and_nothing_else(made, tmp_path):
    edit, path = made.edits["feature"], tmp_path / "p"
    edit.patch(path)
    replace(edit, scale=-1.0).patch(path)
    assert HookPatch.load(path).shift.numbers()["scale"] == -1.0
    for name, text in (("notes", b"mine"), ("weights.safetensors", (made.base / "model.safetensors").read_bytes())):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(LceError, match=f"{name}: exists and is not a patch made by lce"):
            edit.patch(tmp_path / name)
        assert (tmp_path / name).read_bytes() == text


def test_a_write_that_fails_leaves_what_was_there(made, tmp_path, monkeypatch):
    edit = made.edits["feature"]
    with pytest.raises(LceError, match=r"the edit \(scale 1.0, .*\) would change nothing"):
        replace(edit, scale=1.0).patch(tmp_path / "new/p")
    edit.patch(tmp_path / "p")
    content = (tmp_path / "p").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lce.storage.safetensors_file.shutil.copyfileobj", full)
    for path in (tmp_path / "p", tmp_path / "new/q"):
        with pytest.raises(LceError, match=r"cannot be written \(No space left on device\); nothing was left behind"):
            replace(edit, scale=-1.0).patch(path)
    assert list(tmp_path.iterdir()) == [tmp_path / "p"]
    assert (tmp_path / "p").read_bytes() == content


def lce(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", ["feature", "direction"])
def test_inspect_explains_a_patch(made, kind, capsys):
    assert lce("patch", "inspect", made.file(kind)) == 0
    printed = capsys.readouterr().out
    wanted = {
        "feature": ["2 features at layers.0 (scale 0.3, ", f"features: {planted.MALE}, {planted.FEMALE}"],
        "direction": ["a direction at layers.0 (alpha 1.5)", "strategy: direction removal"],
    }[kind]
    why = "how much depends on each state, so it cannot be written as weights"
    for text in (*wanted, why, made.edits[kind].model, "occupation pronouns: 2.00 → 0.50", "all positions but a"):
        assert text in printed


def test_verify_knows_the_base_and_refuses_others(made, tmp_path, capsys):
    other = planted.model()
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1.0
    other.save_pretrained(tmp_path / "other head")
    with torch.no_grad():
        other.model.embed_tokens.weight[0, 0] += 1.0
    other.save_pretrained(tmp_path / "other")
    for folder in (made.base, tmp_path / "other head"):
        assert lce("patch", "verify", folder, "--patch", made.file("feature")) == 0
        assert capsys.readouterr().out == f"{folder} is the base of this patch\n"
    assert lce("patch", "verify", tmp_path / "other", "--patch", made.file("feature")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lce: error:")
    assert "its weights are not those of the model that feature.safetensors was made for" in line


def test_what_needs_weights_refuses_and_says_why(made, tmp_path, capfd):
    patch, out = ("--patch", made.file("feature")), ("--out", tmp_path / "out/new")
    why = "cannot be written as weights; lce.from_pretrained(base, patch=…) sets the hook"
    before = files(made.folder)
    for command, message in (
        (("apply", made.base, *patch, *out), why),
        (("revert", made.base, *patch, *out), why),
        (("compose", made.file("feature"), made.file("direction"), *out), why),
        (("scale", *patch, "--alpha", "2", *out), why),
        (("to-peft", made.base, *patch, *out), why),
        (("inspect", made.file("feature"), "--html", tmp_path / "page.html"), "--html: draws which weights change"),
    ):
        capfd.readouterr()
        assert lce("patch", *command) == 2
        printed = capfd.readouterr()
        (line,) = printed.err.splitlines()
        assert line.startswith("lce: error:")
        assert message in line
        assert not printed.out
    assert not list(tmp_path.iterdir())
    assert files(made.folder) == before
