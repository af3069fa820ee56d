"""Layers before a site are run once for each text, and every number stays the same."""

from __future__ import annotations

import causal_models
import pytest
import torch
from transformers import LlamaForCausalLM

from lce.models.prefix import PrefixCache
from lce.models.shifts import DirectionShift, change_of
from lce.models.sites import changed_at, find_site

TEXTS = [[5, 9, 30, 2, 17], [7, 8, 9, 10, 40]]


def logits(model, ids, **more):
    with torch.inference_mode():
        return model(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **more
        ).logits


def counted(model, layer):
    """How often a module of the first layer was run."""
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "opt", "gemma"])
def test_the_same_numbers_and_each_text_once(kind):
    model = causal_models.tiny(kind)
    site = find_site(model, "layers.0")
    inner = next(module for name, module in site.module(model).named_modules() if isinstance(module, torch.nn.LayerNorm)
                 or "norm" in name.lower() or name.startswith("ln_1"))  # fmt: skip
    width = model.get_input_embeddings().embedding_dim
    edits = [DirectionShift(torch.nn.functional.normalize(torch.randn(width), dim=0), alpha) for alpha in (1.0, 2.0)]
    plain = [logits(model, ids, use_cache=False) for ids in TEXTS]
    wanted = []
    for edit in edits:
        with changed_at(model, site, change_of(edit)):
            wanted += [logits(model, ids, use_cache=False) for ids in TEXTS]
    calls = counted(model, inner)
    cache, found = PrefixCache(model, site), []
    with cache.reused():
        again = [logits(model, ids, use_cache=False) for ids in TEXTS]
        for edit in edits:
            with changed_at(model, site, change_of(edit)):
                found += [logits(model, ids, use_cache=False) for ids in TEXTS]
    assert len(calls) == len(TEXTS)
    assert all(torch.equal(one, other) for one, other in zip(again + found, plain + wanted, strict=True))
    assert not torch.equal(found[0], plain[0])
    logits(model, TEXTS[0], use_cache=False)
    assert len(calls) == len(TEXTS) + 1


def test_generation_with_a_cache_is_left_alone():
    model = causal_models.tiny("llama")
    ids = torch.tensor([TEXTS[0]])
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 1}
    plain = model.generate(ids, **options)
    cache = PrefixCache(model, find_site(model, "layers.0"))
    with cache.reused():
        assert torch.equal(model.generate(ids, **options), plain)
    assert cache.kept == {}


def test_other_attention_is_another_text():
    model = causal_models.tiny("llama")
    ids = torch.tensor([TEXTS[0]])
    masks = [torch.ones(1, 5, dtype=torch.long), torch.tensor([[0, 1, 1, 1, 1]])]
    with torch.inference_mode():
        plain = [model(input_ids=ids, attention_mask=mask, use_cache=False).logits for mask in masks]
        with PrefixCache(model, find_site(model, "layers.0")).reused():
            found = [model(input_ids=ids, attention_mask=mask, use_cache=False).logits for mask in masks * 2]
    assert all(torch.equal(one, other) for one, other in zip(found, plain * 2, strict=True))


def test_memory_is_bounded_and_other_sites_are_run_whole():
    model = causal_models.tiny("llama")
    cache = PrefixCache(model, find_site(model, "layers.0"), most_memory=0)
    with cache.reused():
        logits(model, TEXTS[0], use_cache=False)
    assert cache.kept == {}
    for name in ("layers.1", "layers.0.mlp", "layers.0:input"):
        assert PrefixCache(model, find_site(model, name)).layers == []


def test_only_edits_behind_what_is_kept_may_use_it():
    model = causal_models.tiny("llama")
    cache = PrefixCache(model, find_site(model, "layers.0"))
    assert all(cache.is_before(find_site(model, name)) for name in ("layers.0", "layers.1", "layers.1.mlp"))
    assert not any(cache.is_before(find_site(model, name)) for name in ("layers.0:input", "layers.0.mlp"))
    last = PrefixCache(model, find_site(model, "layers.1"))
    assert not last.is_before(find_site(model, "layers.0"))


def test_states_of_the_layers_before_the_site_are_computed_each_time():
    torch.manual_seed(0)
    config = causal_models.tiny("llama").config
    config.num_hidden_layers = 4
    model = LlamaForCausalLM(config).eval()
    ids = torch.tensor([TEXTS[0]])
    options = {"input_ids": ids, "use_cache": False, "output_hidden_states": True}
    with torch.inference_mode():
        plain = model.base_model(**options).hidden_states
        with PrefixCache(model, find_site(model, "layers.2")).reused():
            found = [model.base_model(**options).hidden_states for _ in range(2)]
    for states in found:
        assert all(torch.equal(one, other) for one, other in zip(states, plain, strict=True))
