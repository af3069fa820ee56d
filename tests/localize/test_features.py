"""Localisation among features: what is planted is found, nothing else, and controls come from the rest."""

from __future__ import annotations

import planted
import pytest
import torch

from lce.foundations.errors import LceError
from lce.localize.feature_settings import FeatureRule
from lce.localize.feature_units import FeatureUnits, Reader, Reading, contexts
from lce.localize.features import random_features, select_features
from lce.localize.selection import Selection
from lce.localize.snippets import with_snippets
from lce.metrics.occupation_pronouns import OCCUPATIONS, SENTENCES

PLANTED = [planted.MALE, planted.FEMALE]


@pytest.fixture(scope="module")
def made():
    model = planted.model().requires_grad_(False)
    units = FeatureUnits.of(model, planted.autoencoder())
    reader = Reader(model, planted.tokenizer(), "causal", units.site)
    return model, units, reader, reader.activations(units.autoencoder, SENTENCES, "all")


@pytest.mark.parametrize("rule", ["counts", "difference", "attribution"])
@pytest.mark.parametrize("templates", [SENTENCES, ["{job}"]])
def test_every_rule_finds_exactly_the_planted_features(made, rule, templates):
    _, units, reader, _ = made
    activations = reader.activations(units.autoencoder, templates, "all")
    attributions = reader.attributions(units.autoencoder, SENTENCES)
    selection = select_features(units, activations, FeatureRule(rule=rule), attributions)
    assert selection.indices[units.name].tolist() == PLANTED
    assert (selection.kind, selection.localization, selection.size) == ("feature", rule, planted.FEATURES)
    male, female = selection.details[units.name]
    assert (male["side"], female["side"]) == ("male", "female")
    assert (male["male_jobs"], male["female_jobs"]) == (20, 0)
    assert (female["male_jobs"], female["female_jobs"]) == (0, 20)


def test_an_attribution_is_what_the_ratio_loses_without_the_feature(made):
    """To first order; the final norm is not linear, so the comparison is made with a small share of the feature."""
    from lce.models.shifts import FeatureShift, change_of
    from lce.models.sites import changed_at

    model, units, reader, _ = made
    attributions = reader.attributions(units.autoencoder, SENTENCES[:1])
    texts = contexts(SENTENCES[:1], list(OCCUPATIONS), planted.tokenizer(), "causal")
    known = planted.tokenizer().get_vocab()

    def ratio(job):
        logits = model(torch.tensor([texts[job].ids])).logits[0, -1].log_softmax(-1)
        return float(logits[known["he"]] - logits[known["she"]])

    share = 1e-3
    shift = FeatureShift(units.autoencoder.features(torch.tensor([planted.MALE])), 1 - share)
    job = list(OCCUPATIONS).index("plumber")
    before = ratio(job)
    with changed_at(model, units.site, change_of(shift)):
        lost = before - ratio(job)
    assert lost / share == pytest.approx(float(attributions.values[job, planted.MALE]), rel=2e-2)


def test_thresholds_are_shares_of_the_occupations(made):
    _, units, _, _ = made
    values = torch.zeros(40, planted.FEATURES)
    values[20:28, 0] = 1.0  # 8 of the 20 male-dominated occupations
    values[:3, 0] = 1.0  # 3 of the others
    values[20:27, 1] = 1.0  # one too few
    values[20:40, 2], values[:4, 2] = 1.0, 1.0  # one too many of the others
    values[20:40, 3] = 0.19  # never beyond the least activation
    activations = Reading(tuple(OCCUPATIONS), values)
    selection = select_features(units, activations, FeatureRule())
    assert selection.indices[units.name].tolist() == [0]
    with pytest.raises(LceError, match=r"rule counts: no feature differs by more than 0.9"):
        select_features(units, activations, FeatureRule(difference=0.9))
    with pytest.raises(LceError, match=r"count: expected 1 to \d+ features, got 100"):
        select_features(units, activations, FeatureRule(rule="difference", count=100))


def test_the_selection_of_one_half_knows_only_its_occupations(made):
    _, units, _, activations = made
    half = activations.among(range(0, 40, 2))
    assert len(half.jobs) == 20
    details = select_features(units, half, FeatureRule()).details[units.name]
    assert [row["male_jobs"] for row in details] == [10, 0]


def test_a_selection_keeps_what_is_known_of_each_feature_in_its_file(made, tmp_path):
    model, units, _, activations = made
    selection = select_features(units, activations, FeatureRule())
    texts = ["The plumber said that", "We met the nurse before", "The plumber plumber", "x x x x"]
    selection = with_snippets(selection, units, model, planted.tokenizer(), texts)
    path = tmp_path / "selection.safetensors"
    selection.save(path)
    loaded = Selection.load(path)
    assert loaded.details == selection.details
    assert loaded.indices[units.name].tolist() == PLANTED
    male, female = loaded.details[units.name]
    assert {snippet["token"] for snippet in male["snippets"]} == {"plumber"}
    assert female["snippets"][0] == {
        "activation": pytest.approx(female["snippets"][0]["activation"]), "before": "We met the ", "token": "nurse",
        "after": " before",
    }  # fmt: skip
    assert all(snippet["activation"] > 0 for row in (male, female) for snippet in row["snippets"])


def test_random_features_are_others_that_are_active_and_as_many(made):
    _, units, _, activations = made
    selection = select_features(units, activations, FeatureRule())
    active = set((activations.values.mean(0) > 0).nonzero().flatten().tolist())
    for is_matched in (False, True):
        draws = [random_features(selection, activations, seed, is_matched) for seed in range(20)]
        for drawn in draws:
            found = drawn.indices[units.name].tolist()
            assert len(found) == len(set(found)) == 2
            assert set(found) <= active - set(PLANTED)
            assert drawn.details == {}
        assert len({tuple(drawn.indices[units.name].tolist()) for drawn in draws}) > 3
        again = random_features(selection, activations, 0, is_matched)
        assert again.indices[units.name].tolist() == draws[0].indices[units.name].tolist()


def test_matched_features_are_as_active_as_the_selected_ones():
    torch.manual_seed(0)
    values = torch.rand(40, 400).pow(3) * torch.linspace(0, 4, 400)
    units = _units_of(400)
    selection = Selection.of(units, units, "difference", {units.name: torch.tensor([300, 350, 399])}.items())
    activations = Reading(tuple(OCCUPATIONS), values)
    means = values.mean(0)
    wanted = means[selection.indices[units.name]].mean()

    def apart(is_matched):
        drawn = [random_features(selection, activations, seed, is_matched) for seed in range(20)]
        return sum(abs(float(means[one.indices[units.name]].mean() - wanted)) for one in drawn) / 20

    assert apart(True) < 0.2 * apart(False)


def _units_of(size):
    from lce.models.autoencoder import SparseAutoencoder
    from lce.models.sites import Site

    tensors = torch.zeros(4, size), torch.zeros(size, 4), torch.zeros(size), torch.zeros(4)
    return FeatureUnits("model", SparseAutoencoder(*tensors), Site("layers.0"))


def test_too_few_other_features_are_an_error(made):
    _, units, _, activations = made
    everything = torch.arange(planted.FEATURES - 1)
    selection = Selection.of(units, units, "difference", {units.name: everything}.items())
    with pytest.raises(LceError, match="random baseline: only"):
        random_features(selection, activations, 0)


def test_an_autoencoder_of_another_width_or_without_a_site_is_refused(made):
    from dataclasses import replace

    model, _, _, _ = made
    narrow = planted.autoencoder()
    narrow = replace(narrow, encoder=narrow.encoder[:8], decoder=narrow.decoder[:, :8], decoder_bias=torch.zeros(8))
    with pytest.raises(LceError, match=r"takes states of width 8 \(d_in\), but at layers.0 those of .* are 32 wide"):
        FeatureUnits.of(model, narrow)
    with pytest.raises(LceError, match=r"does not say for which site it is; name it by --site"):
        FeatureUnits.of(model, replace(planted.autoencoder(), site=""))
    with pytest.raises(LceError, match=r"site layers.9: the model has 2 layers"):
        FeatureUnits.of(model, planted.autoencoder(), "layers.9")
    assert FeatureUnits.of(model, planted.autoencoder(), "blocks.1.hook_resid_post").site.name == "layers.1"


def test_contexts_begin_with_a_token_that_does_not_count():
    (alone,) = contexts(["{job}"], ["nurse"], planted.tokenizer(), "causal")
    assert alone.ids[0] == planted.tokenizer().bos_token_id
    assert len(alone.ids) == 2
    with pytest.raises(LceError, match=r"has no \{job\} in it"):
        contexts(["nothing"], ["nurse"], planted.tokenizer(), "causal")
