"""Sites: found by all their names, read as transformers has them, changed once, and left as they were."""

from __future__ import annotations

from types import SimpleNamespace

import architectures
import causal_models
import masked_models
import pytest
import torch
from transformers import AutoModel, BartConfig, BartForConditionalGeneration, BertForMaskedLM, PreTrainedModel

from lce.foundations.errors import LceError
from lce.models.logits import AFTER_ATTENTION, DECODERS, KEPT_POSITIONS, gathered, log_probabilities_at
from lce.models.places import Place
from lce.models.sites import Site, changed_at, find_site, hook_of, states_at, width_at

STACKS = {
    "llama": "layers", "gpt2": "h", "gpt_neox": "layers", "mpt": "blocks", "opt": "decoder.layers",
    "bert": "encoder.layer", "roberta": "encoder.layer", "distilbert": "transformer.layer", "modernbert": "layers",
    "electra": "encoder.layer",
}  # fmt: skip
HEADS = {
    "llama": "model", "gpt2": "transformer", "gpt_neox": "gpt_neox", "mpt": "transformer", "opt": "model",
    "bert": "bert", "roberta": "roberta", "distilbert": "distilbert", "modernbert": "model", "electra": "electra",
}  # fmt: skip
PRE_NORM = ("megatron-bert", "roberta-prelayernorm", "xlm-roberta-xl", "esm", "eurobert", "modernbert", "ultrabert")
"""Masked models whose layers add to their states what their two blocks put out, as those of decoders do."""
GATHERED = [kind for kind in AFTER_ATTENTION if kind not in ("yoso", "nystromformer", "mra")]


def tiny(kind: str) -> PreTrainedModel:
    made = causal_models if kind in causal_models.CONFIGS else masked_models
    return made.tiny(kind).requires_grad_(False)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Three texts, one of them shorter."""
    ids = torch.randint(5, 45, (3, 8), generator=torch.Generator().manual_seed(0))
    attention = torch.ones_like(ids)
    attention[1, 5:] = 0
    return ids, attention


def read(model: PreTrainedModel, name: str) -> torch.Tensor:
    ids, attention = batch()
    return states_at(model, find_site(model, name), ids, attention)[attention.bool()]


@pytest.mark.parametrize("kind", STACKS)
def test_a_layer_has_the_same_site_by_all_its_names(kind: str) -> None:
    model, path = tiny(kind), f"{STACKS[kind]}.1"
    names = ["layers.1", path, f"{HEADS[kind]}.{path}", "blocks.1.hook_resid_post"]
    assert {find_site(model, name) for name in names} == {Site(path)}
    assert find_site(model, "blocks.1.hook_resid_pre") == Site(f"{STACKS[kind]}.0")
    assert find_site(model, "blocks.0.hook_resid_pre") == Site(f"{STACKS[kind]}.0:input")
    assert find_site(model, "layers.0:input") == find_site(model, f"{HEADS[kind]}.{STACKS[kind]}.0:input")
    assert find_site(model.base_model, "layers.1") == find_site(model.base_model, path) == Site(path)
    assert Site(path).module(model) is Site(path).module(model.base_model) is model.base_model.get_submodule(path)
    assert (hook_of(model, Site(path)), hook_of(model, Site(f"{path}:input"))) == (names[-1], f"{path}:input")
    assert width_at(model, Site(path)) == 16


@pytest.mark.parametrize("kind", STACKS)
def test_states_are_those_that_transformers_gives(kind: str) -> None:
    model = tiny(kind)
    ids, attention = batch()
    seen: list[torch.Tensor] = []
    hook = model.base_model.get_submodule(f"{STACKS[kind]}.1").register_forward_hook(
        lambda _, __, output: seen.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    wanted = model.base_model(input_ids=ids, attention_mask=attention, output_hidden_states=True).hidden_states
    hook.remove()
    for name, states in {"layers.0:input": wanted[0], "layers.0": wanted[1], "layers.1": seen[0]}.items():
        torch.testing.assert_close(read(model, name), states[attention.bool()], atol=1e-5, rtol=0)
    torch.testing.assert_close(read(model, "layers.1:input"), read(model, "layers.0"), atol=0, rtol=0)


@pytest.mark.parametrize("kind", [*DECODERS, *PRE_NORM])
def test_hooks_of_blocks_are_what_the_blocks_add(kind: str) -> None:
    model = tiny(kind)
    if kind == "opt":
        with pytest.raises(LceError, match=r"site blocks.1.hook_mlp_out: a layer of OPTForCausalLM has no module"):
            find_site(model, "blocks.1.hook_mlp_out")
        return
    before, attention, mlp, after = (
        read(model, f"blocks.1.hook_{name}") for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")
    )
    assert min(attention.abs().max(), mlp.abs().max()) > 1e-2
    torch.testing.assert_close(before + attention + mlp, after, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "mpnet"])
def test_hooks_of_blocks_that_are_normalised_with_the_states(kind: str) -> None:
    model = tiny(kind)
    layer = find_site(model, "layers.1").module(model)
    first = layer.attention.LayerNorm if kind == "mpnet" else layer.attention.output.LayerNorm
    between = first(read(model, "layers.0") + read(model, "blocks.1.hook_attn_out"))
    after = layer.output.LayerNorm(between + read(model, "blocks.1.hook_mlp_out"))
    torch.testing.assert_close(after, read(model, "blocks.1.hook_resid_post"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["layers.0", "layers.1", "layers.1:input", "blocks.1.hook_attn_out"])
@pytest.mark.parametrize("kind", [*GATHERED, "distilbert", "modernbert", "opt", "gpt2", "gemma2"])
def test_a_change_reaches_every_position_once(kind: str, name: str) -> None:
    """Log-probabilities with the states' changes are the same whether or not the positions that are asked for go on."""
    model = tiny(kind)
    ids, attention = batch()
    places, tokens = torch.tensor([9, 1, 17, 3, 9, 16]), torch.tensor([5, 6, 7, 8, 9, 10])

    def change(states: torch.Tensor, place: Place) -> torch.Tensor:
        return states * torch.where(place.first_of(states).unsqueeze(-1), 1.0, -0.5)

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(input_ids=ids, attention_mask=attention).logits.flatten(0, 1)[places].log_softmax(-1)
        return logits[torch.arange(6), tokens], log_probabilities_at(model, ids, attention, places, tokens)

    before = found()
    with changed_at(model, find_site(model, name), change):
        whole, chosen = found()
    torch.testing.assert_close(chosen, whole, atol=1e-4, rtol=1e-4)
    assert float((whole - before[0]).abs().max()) > 1e-3
    assert torch.equal(found()[0], before[0])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_text_of_which_as_many_positions_are_asked_for_as_it_has() -> None:
    """The shape of its states does not say whether they were gathered."""
    model = tiny("bert")
    ids, places, tokens = batch()[0][:1, :4], torch.tensor([3, 0, 3, 1]), torch.tensor([5, 6, 7, 8])
    with changed_at(model, find_site(model, "layers.1"), lambda s, at: s.masked_fill(at.first_of(s)[..., None], 9.0)):
        wanted = model(ids).logits[0, places].log_softmax(-1)[torch.arange(4), tokens]
        found = log_probabilities_at(model, ids, torch.ones_like(ids), places, tokens)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_hooks_go_whatever_happens(model: BertForMaskedLM) -> None:
    def fails(*_: object) -> torch.Tensor:
        raise ZeroDivisionError

    for name in ("layers.0", "layers.0:input"):
        with pytest.raises(ZeroDivisionError), changed_at(model, find_site(model, name), fails):
            model(batch()[0])
    ran: list[int] = []
    hook = model.bert.encoder.layer[1].register_forward_hook(lambda *_: ran.append(1))
    read(model, "layers.0")
    hook.remove()
    assert not ran, "what comes behind a site need not be run"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_module_that_puts_out_several_things_can_be_a_site() -> None:
    for kind, path in {"bert": "encoder", "opt": "decoder.layers.0.self_attn", "gpt2": "h.0.attn"}.items():
        model = tiny(kind)
        ids, _ = batch()
        plain = model(ids).logits
        with changed_at(model, find_site(model, path), lambda states, _: states):
            assert torch.equal(model(ids).logits, plain)
        with changed_at(model, find_site(model, path), lambda states, _: 2 * states + 1):
            assert not torch.allclose(model(ids).logits, plain, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("llama", "layers.2", r"site layers.2: the model has 2 layers, layers.0 to layers.1"),
        ("llama", "blocks.2.hook_resid_pre", r"the model has 2 layers, layers.0 to layers.1"),
        ("llama", "blocks.0.attn.hook_z", r"site .*hook_z: is a hook of TransformerLens that lce cannot place"),
        ("llama", "hook_embed", r"site hook_embed: is a hook of TransformerLens that lce cannot place"),
        ("llama", "layers.0.nothing", r"site layers.0.nothing: the model has no such module; expected layers.N"),
        ("llama", "blocks.0", r"site blocks.0: the model has no such module; expected layers.N"),
        ("opt", "decoder", r"site decoder: the model has no such module; expected layers.N"),
        ("fnet", "blocks.0.hook_attn_out", r"a layer of FNetForMaskedLM has no module called attention.output.dense"),
        ("albert", "layers.0", r"one stack of layers, found none; give the module's full path"),
        ("bart", "layers.0", r"one stack of layers, found several: encoder.layers, decoder.layers"),
        ("xlm", "layers.0", r"one stack of layers, found several: attentions, layer_norm1, ffns, layer_norm2"),
    ],
)  # fmt: skip
def test_names_of_nothing(kind: str, name: str, message: str) -> None:
    with pytest.raises(LceError, match=message) as caught:
        find_site(tiny(kind), name)
    assert "\n" not in str(caught.value)


def test_places_without_states() -> None:
    llama, opt = tiny("llama"), tiny("opt")
    for model, name in ((llama, "embed_tokens:input"), (llama, "rotary_emb"), (opt, "layers.0.fc1")):
        with pytest.raises(LceError, match=r"has no states? (there|of each token there)$"):
            width_at(model, find_site(model, name))
    with pytest.raises(LceError, match="site lm_head: LlamaForCausalLM has no module lm_head"):
        Site("lm_head").module(llama)
    with pytest.raises(LceError, match="site h: a forward pass of GPT2LMHeadModel does not come by it"):
        width_at(tiny("gpt2"), Site("h"))


@pytest.mark.parametrize("is_equal", [True, False])
def test_models_with_several_stacks_are_refused_but_for_full_paths(is_equal: bool) -> None:
    sizes = {**masked_models.SEQUENCES, "decoder_layers": 1 if is_equal else 3}
    bart = BartForConditionalGeneration(BartConfig(vocab_size=50, **sizes))
    for model in (bart, bart.model, AutoModel.from_config(bart.config), architectures.made("t5")):
        with pytest.raises(LceError, match=r"one stack of layers, found several: encoder\..*, decoder\."):
            find_site(model, "layers.0")
    site = find_site(bart, "model.encoder.layers.0")
    assert hook_of(bart, site) == site.name == "encoder.layers.0"


def test_first_tokens_are_told_by_whatever_the_model_is_given() -> None:
    place, none = Place(), torch.nn.Identity()
    ids = torch.zeros(2, 3, dtype=torch.long)
    first = torch.tensor([[True, False, False]] * 2)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
    second = torch.tensor([[True, False, False], [False, True, False]])
    cache = SimpleNamespace(get_seq_length=lambda: 2)
    longer = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
    for arguments, named, wanted, is_prompt in [
        ((ids,), {}, first, True),
        ((), {"input_ids": None, "inputs_embeds": torch.zeros(2, 3, 4)}, first, True),
        ((ids,), {"attention_mask": mask}, second, True),
        ((ids,), {"attention_mask": mask, "position_ids": torch.tensor([[0, 1, 2], [1, 0, 1]])}, second, True),
        ((ids,), {"attention_mask": mask, "position_ids": torch.tensor([[0, 1, 2], [0, 0, 1]])}, second, True),
        ((), {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 0]])}, first | first.roll(2, 1), True),
        ((ids,), {"past_key_values": cache}, torch.zeros(2, 3, dtype=torch.bool), False),
        ((ids,), {"past_key_values": cache, "attention_mask": longer}, second & ~first, False),
    ]:
        place.note(arguments, named)
        assert (place.is_first.tolist(), place.is_prompt) == (wanted.tolist(), is_prompt)
    place.note((ids,), {"attention_mask": mask})
    assert place.first_of(torch.zeros(2, 3, 7)).tolist() == second.tolist()
    with gathered(none, torch.tensor([4, 4, 0, 1])):
        assert place.first_of(torch.zeros(1, 4, 7)).tolist() == [[True, True, True, False]]
    assert KEPT_POSITIONS.get(None) is None
