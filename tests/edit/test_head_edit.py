"""Edits of attention heads: what the formulas say, undone bit for bit, and the same as the patches that they leave."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from clips import HEAD_WIDTH, LAYERS, embeddings, loaded, tiny
from head_audits import audit, selected
from painted import paint
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

import lce
from lce.cli import main
from lce.edit.head_edit import HEAD_EDITS
from lce.foundations.errors import LceError
from lce.localize.head_units import HeadUnits
from lce.models.identity import model_fingerprint
from lce.models.image_states import ImageStates
from lce.models.image_tower import ImageTower
from lce.storage.checkpoint import Checkpoint

CHOSEN = (0, 2), (2, 1), (2, 3)
FLOATS = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module", params=FLOATS, ids=str)
def made(request, tmp_path_factory):
    """An audit of a model that is stored in this type, and the pixels of all pictures."""
    folder = tmp_path_factory.mktemp("edits")
    found = audit(loaded(folder / "model", dtype=request.param), paint(folder / "pictures", 2))
    return found, torch.cat([pixels for _, pixels in found.batches.read("")])


@pytest.fixture(params=HEAD_EDITS)
def edit(request, made):
    return made[0].edit(selected(made[0], *CHOSEN), request.param)


def weights(model):
    return {name: parameter.clone() for name, parameter in model.named_parameters()}


def changed(model, before):
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def projections(*layers):
    return {f"vision_model.encoder.layers.{layer}.self_attn.out_proj.{part}" for layer in layers
            for part in ("weight", "bias")}  # fmt: skip


def test_the_new_weights_are_what_the_formulas_say(made, edit):
    audit, pixels = made
    tower, statistics = audit.clip.tower, audit.statistics
    states = ImageStates.of(tower, pixels)
    v = statistics.reading.map.T @ audit.direction
    v = (v / v.norm()).double()
    outputs = edit.outputs()
    assert sorted(outputs) == [0, 2]
    for layer, (weight, bias) in outputs.items():
        wanted, added = tower.output(layer).weight.double(), tower.output(layer).bias.double()
        z = states.mixed[layer].reshape(-1, tower.width).double().mean(0)
        for head in (head for at, head in CHOSEN if at == layer):
            columns = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
            old = wanted[:, columns]
            along = torch.outer(v, v) @ old
            kept = {"zero": 0 * old, "mean": 0 * old, "projection": old - along}[edit.name]
            lost = {"zero": 0 * old, "mean": old, "projection": along}[edit.name]
            added = added + lost @ z[columns]
            wanted = wanted.clone()
            wanted[:, columns] = kept
        dtype = CLIPModel.from_pretrained(audit.clip.folder).dtype
        precise = {"atol": 1e-6, "rtol": 0 if dtype == torch.float32 else torch.finfo(dtype).eps}
        torch.testing.assert_close(weight, wanted.to(dtype).float(), **precise)
        torch.testing.assert_close(bias, added.to(dtype).float(), **precise)
        assert torch.equal(weight, weight.to(dtype).float()), "the files can hold it"
        others = [column for column in range(tower.width) if (layer, column // HEAD_WIDTH) not in CHOSEN]
        assert torch.equal(weight[:, others], tower.output(layer).weight[:, others])


def test_applied_and_undone_bit_for_bit_even_after_an_error(made, edit):
    audit, pixels = made
    model = audit.clip.model
    before, plain = weights(model), embeddings(model, pixels)
    with edit.applied(model):
        assert changed(model, before) == projections(0, 2) - (
            {name for name in projections(0, 2) if name.endswith("bias")} if edit.name == "zero" else set()
        )
        edited = embeddings(model, pixels)
    assert float((edited - plain).norm(dim=1).min()) > 1e-3
    states = ImageStates.of(audit.clip.tower, pixels)
    torch.testing.assert_close(edited, states.embedding(edit.outputs()), atol=1e-5, rtol=0)
    with pytest.raises(ZeroDivisionError), edit.applied(model):
        raise ZeroDivisionError
    assert changed(model, before) == set()
    assert torch.equal(embeddings(model, pixels), plain)


def test_another_model_is_refused(made, edit):
    other = tiny(seed=1)
    before = weights(other)
    with pytest.raises(LceError, match="the model is not the one that the heads were selected in"), edit.applied(other):
        pass
    assert changed(other, before) == set()


def test_a_model_that_is_edited_already_is_another_one(made, edit):
    audit, _ = made
    model, own = audit.clip.model, model_fingerprint(audit.clip.model)
    before = weights(model)
    with edit.applied(model):
        assert model_fingerprint(model) != own
        with pytest.raises(LceError, match="not the one that the heads were selected in"), edit.applied(model):
            pass
    assert model_fingerprint(model) == own
    assert changed(model, before) == set()


def test_the_patch_is_the_edit_for_plain_transformers(made, edit, tmp_path):
    audit, pixels = made
    model = audit.clip.model
    patch = edit.patch(tmp_path / "p.safetensors", {"model": "tiny"})
    assert patch.provenance["strategy"] == f"{edit.name} of heads"
    assert patch.provenance["heads"] == ["0.2", "2.1", "2.3"]
    assert set(patch.parameters) <= projections(0, 2)
    out = tmp_path / "out"
    assert main(["patch", "apply", str(audit.clip.folder), "--patch", str(patch.file), "--out", str(out)]) == 0
    written = CLIPModel.from_pretrained(out, dtype=torch.float32)
    in_one_call = lce.from_pretrained(audit.clip.folder, patch=patch.file, dtype=torch.float32)
    with edit.applied(model):
        torch.testing.assert_close(embeddings(written, pixels), embeddings(model, pixels), atol=1e-6, rtol=0)
        for found in (written, in_one_call):
            assert all(torch.equal(p, model.get_parameter(name)) for name, p in found.named_parameters())
    assert main(["patch", "revert", str(out), "--patch", str(patch.file), "--out", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back/model.safetensors").read_bytes() == (audit.clip.folder / "model.safetensors").read_bytes()


def test_the_patch_can_be_made_weaker(made, edit, tmp_path):
    audit, _ = made
    patch = edit.patch(tmp_path / "p.safetensors")
    out, weaker = tmp_path / "out", tmp_path / "weaker.safetensors"
    assert main(["patch", "scale", "--patch", str(patch.file), "--alpha", "0.5", "--out", str(weaker)]) == 0
    assert main(["patch", "apply", str(audit.clip.folder), "--patch", str(weaker), "--out", str(out)]) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (audit.clip.folder, out))
    whole = {name: part for layer, parts in edit.outputs().items()
             for name, part in zip(sorted(projections(layer), reverse=True), parts, strict=True)}  # fmt: skip
    for name, tensor in after.items():
        wanted = (before[name].float() + whole[name]) / 2 if name in whole else before[name].float()
        precision = torch.finfo(tensor.dtype).eps
        torch.testing.assert_close(tensor.float(), wanted, atol=precision, rtol=2 * precision)


def test_an_edit_that_changes_nothing_is_an_error(made, tmp_path):
    """Heads that write nothing any more, as in a model that was edited before."""
    audit, _ = made
    folder = tmp_path / "zeroed"
    first = audit.edit(selected(audit, *CHOSEN), "zero")
    patch = first.patch(tmp_path / "p.safetensors")
    assert main(["patch", "apply", str(audit.clip.folder), "--patch", str(patch.file), "--out", str(folder)]) == 0
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    units = HeadUnits(model_fingerprint(model), ImageTower.of(model))
    again = replace(first, units=units, checkpoint=Checkpoint(str(folder)))
    for name in ("zero", "mean"):
        void, path = replace(again, name=name), tmp_path / f"{name}.safetensors"
        message = f"the edit .{name}. would change no weight of"
        before = weights(model)
        with pytest.raises(LceError, match=message), void.applied(model):
            pass
        assert changed(model, before) == set()
        with pytest.raises(LceError, match=message):
            void.patch(path)
        assert not path.exists()


def test_in_the_last_layer_what_the_mean_leaves_is_the_same_for_all_pictures(made):
    """What the head adds to the class token is its mean over pictures; below, its mean over all tokens."""
    audit, pixels = made
    tower = audit.clip.tower
    states = ImageStates.of(tower, pixels)
    for layer in range(LAYERS):
        edit = audit.edit(selected(audit, (layer, 1)), "mean")
        weight, bias = edit.outputs()[layer]
        columns = slice(HEAD_WIDTH, 2 * HEAD_WIDTH)
        added = states.mixed[layer][..., columns] @ tower.output(layer).weight[:, columns].T
        left = states.mixed[layer][..., columns] @ weight[:, columns].T + (bias - tower.output(layer).bias)
        assert float(left.flatten(0, 1).std(0).max()) == 0
        assert float(added.flatten(0, 1).std(0).max()) > 1e-2
        precision = torch.finfo(CLIPModel.from_pretrained(audit.clip.folder).dtype).eps
        torch.testing.assert_close(left[0, 0], added.mean((0, 1)), atol=10 * precision, rtol=0)


def test_projection_takes_the_concept_out_of_a_head_and_nothing_else(made):
    """What is left of the head in the last layer shows as much of the concept in every picture, given its factor."""
    audit, pixels = made
    tower, reading = audit.clip.tower, audit.statistics.reading
    weight, bias = audit.edit(selected(audit, (2, 1)), "projection").outputs()[2]
    columns = slice(HEAD_WIDTH, 2 * HEAD_WIDTH)
    z = ImageStates.of(tower, pixels).mixed[2][:, 0, columns]
    before, after = (z @ part[:, columns].T @ reading.map.T for part in (tower.output(2).weight, weight))
    after = after + (bias - tower.output(2).bias) @ reading.map.T
    assert float((before @ audit.direction).std()) > 1e-2
    assert float((after @ audit.direction).std()) < 0.02 * float((before @ audit.direction).std())
    v = reading.map.T @ audit.direction
    lost = tower.output(2).weight[:, columns] - weight[:, columns]
    outside = lost - torch.outer(v, v @ lost) / v.square().sum()
    assert float(outside.abs().max()) < 0.02 * float(lost.abs().max())


def test_random_baselines_are_of_the_same_layers(made, edit):
    drawn = [edit.random_baseline(seed, True) for seed in range(20)]
    for one in drawn:
        assert one.selection.counts == edit.selection.counts
        assert (one.name, one.selection.localization) == (edit.name, "matched-heads")
    assert len({tuple(one.units.heads_of(one.selection)) for one in drawn}) > 5
    anywhere = {tuple(edit.random_baseline(seed).selection.counts.values()) for seed in range(20)}
    assert len(anywhere) > 3


def test_a_checkpoint_without_the_weights_is_refused(made, edit, tmp_path):
    (tmp_path / "other").mkdir()
    save_file({"weight": torch.zeros(1)}, tmp_path / "other/model.safetensors")
    (tmp_path / "other/config.json").write_text(json.dumps({"model_type": "clip"}), encoding="utf-8")
    with pytest.raises(LceError, match="its files hold no vision_model"):
        replace(edit, checkpoint=Checkpoint(str(tmp_path / "other"))).patch(tmp_path / "p")
    assert not (tmp_path / "p").exists()
