"""Edits by hooks: exact, undone, left out at the first token, and the same as the patches that they leave."""

from __future__ import annotations

from dataclasses import replace

import planted
import pytest
import torch

from lce.edit.site_edit import DirectionEdit, FeatureEdit
from lce.foundations.errors import LceError
from lce.localize.directions import occupation_direction, pronoun_direction
from lce.localize.feature_settings import FeatureRule
from lce.localize.feature_units import FeatureUnits, Reader
from lce.localize.features import select_features
from lce.metrics.occupation_pronouns import HELD_OUT, SENTENCES, OccupationPronounsScorer
from lce.metrics.scoring import TokenBudget
from lce.patch.hooks import HookPatch
from lce.patch.loading import from_pretrained

TEXTS = ["The nurse said that", "Yesterday the plumber told me that"]


@pytest.fixture(scope="module")
def made():
    model = planted.model().requires_grad_(False)
    units = FeatureUnits.of(model, planted.autoencoder())
    reader = Reader(model, planted.tokenizer(), "causal", units.site)
    activations = reader.activations(units.autoencoder, SENTENCES, "all")
    selection = select_features(units, activations, FeatureRule())
    return model, FeatureEdit(units, selection, activations, 0.0), reader


def logits(model):
    with torch.inference_mode():
        return [model(**planted.tokenizer()(text, return_tensors="pt")).logits for text in TEXTS]


def gap(model, sentences=HELD_OUT):
    scorer = OccupationPronounsScorer("pronouns", sentences, planted.tokenizer(), "causal")
    return float(scorer.score(model, TokenBudget()).compute())


def test_suppression_removes_exactly_the_planted_effect(made):
    model, edit, _ = made
    before = gap(model)
    assert before > 0.5
    with edit.applied(model):
        assert gap(model) == pytest.approx(0, abs=1e-5)
    with replace(edit, scale=-1.0).applied(model):
        assert gap(model) == pytest.approx(-before, rel=1e-4)
    with replace(edit, scale=0.5).applied(model):
        assert 0.3 * before < gap(model) < 0.7 * before
    for seed in range(3):
        with edit.random_baseline(seed).applied(model):
            assert gap(model) > 0.9 * before
    assert gap(model) == before


def test_scale_1_changes_no_bit_of_any_logit(made):
    model, edit, _ = made
    before = logits(model)
    with replace(edit, scale=1.0, may_be_void=True).applied(model):
        after = logits(model)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    with pytest.raises(LceError, match=r"the edit \(scale 1.0, .*\) would change nothing"), \
            replace(edit, scale=1.0).applied(model):  # fmt: skip
        pass


@pytest.mark.parametrize("kind", ["feature", "direction"])
def test_undone_bit_for_bit_even_after_an_error(made, kind):
    model, edit, reader = made
    if kind == "direction":
        edit = DirectionEdit(pronoun_direction(reader), 1.0)
    before, weights = logits(model), {name: p.clone() for name, p in model.named_parameters()}
    with edit.applied(model):
        assert not torch.equal(logits(model)[0], before[0])
    with pytest.raises(ZeroDivisionError), edit.applied(model):
        raise ZeroDivisionError
    assert all(torch.equal(one, other) for one, other in zip(before, logits(model), strict=True))
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_edit_is_what_the_formula_says(made):
    """h ← h + Σ (s − 1) z_f W_dec[f] by a literal loop; the first token keeps its state."""
    from lce.models.sites import changed_at

    model, edit, _ = made
    sae, scale = edit.units.autoencoder, -0.4
    seen = []

    def look(states, _):
        seen.append(states.clone())
        return states

    ids = planted.tokenizer()(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        with changed_at(model, edit.site, look):
            model(**ids)
        with replace(edit, scale=scale).applied(model), changed_at(model, edit.site, look):
            model(**ids)
    plain, edited = seen
    wanted = plain.clone()
    for position in range(1, plain.shape[1]):
        state = plain[0, position]
        for f in (planted.MALE, planted.FEMALE):
            z = torch.relu(state @ sae.encoder[:, f] + sae.encoder_bias[f])
            wanted[0, position] += (scale - 1) * z * sae.decoder[f]
    assert torch.allclose(edited, wanted, atol=1e-6)
    assert torch.equal(edited[0, 0], plain[0, 0])


def test_directions_are_found_and_taken_out(made):
    model, _, reader = made
    wanted = planted.directions()[0]
    before = gap(model)
    for direction in (occupation_direction(reader, reader.states(SENTENCES, "last")), pronoun_direction(reader)):
        if direction.name == "occupations":
            assert float(direction.vector @ wanted) == pytest.approx(1, abs=1e-4)
            with DirectionEdit(direction, 1.0).applied(model):
                assert gap(model) == pytest.approx(0, abs=1e-4)
            with DirectionEdit(direction, 1.0).random_baseline(0).applied(model):
                assert gap(model) == pytest.approx(before, rel=0.2)
        assert float(direction.vector.norm()) == pytest.approx(1, abs=1e-6)


def test_another_model_is_refused(made):
    model, edit, _ = made
    other = planted.model()
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    with pytest.raises(LceError, match="other weights than the one that this edit was made for"), edit.applied(other):
        pass
    with torch.no_grad():
        other.model.layers[1].mlp.up_proj.weight[0, 0] = model.model.layers[1].mlp.up_proj.weight[0, 0]
    with edit.applied(other):
        pass
    with pytest.raises(LceError, match="made for another model, site or autoencoder"):
        replace(edit, units=replace(edit.units, model="another"))


@pytest.mark.parametrize("positions", ["all", "prompt"])
def test_generation_with_the_patch_is_generation_with_the_edit(made, tmp_path, positions):
    model, edit, _ = made
    folder, _ = planted.saved(tmp_path)
    edit = replace(edit, scale=-3.0, positions=positions)
    patch = edit.patch(tmp_path / "patch.safetensors", {"model": "planted"})
    patched = from_pretrained(folder, patch=patch.file)
    ids = planted.tokenizer()(TEXTS[0], return_tensors="pt")
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 1}
    plain = model.generate(**ids, **options)
    with edit.applied(model):
        edited = model.generate(**ids, **options)
        scores = logits(model)
    assert torch.equal(patched.generate(**ids, **options), edited)
    assert not torch.equal(edited, plain)
    assert all(torch.equal(one, other) for one, other in zip(scores, logits(patched), strict=True))


def test_with_a_cache_as_without(made):
    """Every position is edited once, whether the model computes it alone or with those before it."""
    model, edit, _ = made
    ids = planted.tokenizer()(TEXTS[1], return_tensors="pt")["input_ids"]
    with replace(edit, scale=-2.0).applied(model), torch.inference_mode():
        whole = model(ids).logits
        cache, steps = None, []
        for position in range(ids.shape[1]):
            out = model(ids[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            steps.append(out.logits)
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)


def test_padding_on_either_side_changes_nothing(made):
    model, edit, _ = made
    ids = [planted.tokenizer()(text)["input_ids"] for text in TEXTS]
    longest = max(map(len, ids))
    with replace(edit, scale=-2.0).applied(model), torch.inference_mode():
        alone = [model(torch.tensor([one])).logits[0, -1] for one in ids]
        for is_left in (True, False):
            rows = [[0] * (longest - len(one)) + one if is_left else one + [0] * (longest - len(one)) for one in ids]
            marks = [
                [int(i >= longest - len(one)) if is_left else int(i < len(one)) for i in range(longest)] for one in ids
            ]
            out = model(torch.tensor(rows), attention_mask=torch.tensor(marks)).logits
            for row, one in enumerate(ids):
                last = longest - 1 if is_left else len(one) - 1
                assert torch.allclose(out[row, last], alone[row], atol=1e-4)


def test_the_prompt_alone_leaves_what_is_generated(made):
    model, edit, _ = made
    edit = replace(edit, scale=-2.0)
    ids = planted.tokenizer()("The nurse said that the plumber", return_tensors="pt")["input_ids"]
    results = {}
    for positions in ("all", "prompt"):
        with replace(edit, positions=positions).applied(model), torch.inference_mode():
            first = model(ids[:, :4], use_cache=True)
            results[positions] = model(ids[:, 4:], past_key_values=first.past_key_values).logits
    assert not torch.allclose(results["all"], results["prompt"], atol=1e-3)


def test_a_patch_of_a_few_features_is_small_and_knows_where_it_comes_from(made, tmp_path):
    _, edit, _ = made
    path = tmp_path / "patch.safetensors"
    edit.patch(path, {"scores": {"gap": {"before": 1.0, "after": 0.0}}})
    patch = HookPatch.load(path)
    assert (patch.count, patch.site, patch.positions, patch.base) == (2, edit.site, "all", edit.model)
    assert patch.provenance["features"] == [planted.MALE, planted.FEMALE]
    assert patch.shift.tensors()["encoder"].shape == (2, planted.WIDTH)
    assert path.stat().st_size < 4096
    with pytest.raises(LceError, match="would change nothing"):
        replace(edit, scale=1.0, may_be_void=True).patch(tmp_path / "void.safetensors")
    assert not (tmp_path / "void.safetensors").exists()


def test_of_a_topk_autoencoder_the_patch_is_the_edit_too(made, tmp_path):
    """Whether a feature is among the k largest depends on all: the patch has the whole encoder."""
    model, edit, _ = made
    sae = replace(edit.units.autoencoder, architecture="topk", k=2)
    units = replace(edit.units, autoencoder=sae)
    selection = replace(edit.selection, target=units.fingerprint, reference=units.fingerprint)
    topk = replace(edit, units=units, selection=selection)
    patch = topk.patch(tmp_path / "patch.safetensors")
    with topk.applied(model):
        edited = logits(model)
    with patch.applied(model):
        assert all(torch.equal(one, other) for one, other in zip(edited, logits(model), strict=True))
    assert patch.count == 2
    assert len(patch.shift.tensors()["encoder"]) == planted.FEATURES
