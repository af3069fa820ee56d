"""The autoencoder of SmolLM2 that is shipped, on the real model: its features, edits of them, and held-out jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT

from lce.edit.site_edit import FeatureEdit
from lce.evaluation.cross_fitted import cross_fitted, halves
from lce.evaluation.site_edits import SiteEdits, feature_trial
from lce.localize.feature_settings import FeatureSettings
from lce.localize.features import about
from lce.localize.snippets import with_snippets
from lce.metrics.occupation_pronouns import HELD_OUT, OccupationPronounsScorer
from lce.metrics.scoring import TokenBudget
from lce.models.converted import SMOLLM2, provide
from lce.models.loading import load_language_model
from lce.models.prefix import PrefixCache
from lce.models.sites import states_at
from lce.patch.loading import from_pretrained

SAE = ROOT / "checkpoints/smollm2-sae"
TEXTS = [
    "The plumber repaired the kitchen sink, and then he sent the bill.",
    "My aunt lives by the sea with her husband and two dogs.",
    "The children of the village learn to read and write at the old school.",
]


@pytest.fixture(scope="module")
def base(downloads: Path) -> Path:
    provide(downloads / SMOLLM2, downloads)
    return downloads / SMOLLM2


@pytest.fixture(scope="module")
def made(base: Path):
    model, tokenizer = load_language_model(base)
    model.requires_grad_(False)
    settings = FeatureSettings(model=str(base), sae=str(SAE), rule="attribution")
    return model, tokenizer, SiteEdits(settings, model, tokenizer, "causal")


def test_it_explains_most_of_the_states_as_sae_lens_reads_it(made) -> None:
    from sae_lens import SAE as Peer

    model, tokenizer, edits = made
    ids = tokenizer(TEXTS[:1], return_tensors="pt")
    with torch.inference_mode():
        states = states_at(model, edits.units.site, ids["input_ids"], ids["attention_mask"])[0, 1:].float()
        autoencoder = edits.units.autoencoder
        z, again = autoencoder.encode(states), autoencoder.reconstruct(states)
        peer = Peer.load_from_disk(SAE, dtype="float32").encode(states)
    assert torch.allclose(z, peer, atol=1e-3 * float(z.max()))
    unexplained = float((states - again).square().sum() / (states - states.mean(0)).square().sum())
    assert unexplained < 0.4
    assert 10 < float((z > 0).sum(1).float().mean()) < 80


def test_a_few_features_close_half_of_the_gap_on_held_out_occupations_and_random_ones_nothing(made) -> None:
    model, tokenizer, edits = made
    trial = feature_trial(edits, "attribution", 0.0)
    assert isinstance(trial.whole, FeatureEdit)
    assert 5 <= trial.count <= 20
    scorer = OccupationPronounsScorer("gap", HELD_OUT, tokenizer, "causal")

    def measure(one):
        return [scorer.score(one, TokenBudget())]

    with PrefixCache(model, edits.units.site).reused():
        before = float(scorer.score(model, TokenBudget()).compute())
        assert before > 1.5
        (held_out,) = cross_fitted(trial.by_half, halves(0), model, measure)
        assert float(held_out.compute()) < 0.55 * before
        for is_matched in (False, True):
            with trial.whole.random_baseline(0, is_matched).applied(model):
                assert float(scorer.score(model, TokenBudget()).compute()) == pytest.approx(before, rel=0.1)


def test_a_feature_of_the_female_side_is_active_on_her(made) -> None:
    model, tokenizer, edits = made
    selection = with_snippets(edits.selection(), edits.units, model, tokenizer, TEXTS)
    female = [row for row in about(selection) if row["side"] == "female"]
    assert any(snippet["token"].strip() == "her" for row in female for snippet in row["snippets"])


def test_the_patch_generates_what_the_edit_does(made, base: Path, tmp_path: Path) -> None:
    model, tokenizer, edits = made
    edit = edits.features(-1.0)
    patch = edit.patch(tmp_path / "patch.safetensors")
    assert patch.file.stat().st_size < 200_000
    ids = tokenizer("The nurse said that", return_tensors="pt")
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
    with edit.applied(model):
        edited = model.generate(**ids, **options)
    assert torch.equal(from_pretrained(base, patch=patch.file).generate(**ids, **options), edited)
    assert not torch.equal(model.generate(**ids, **options), edited)
