"""Sites: places inside a model where its states are read and changed, whatever the architecture.

A site is the output of one module, or the input of one, with a state of the model's width at every position. People
name it by the layer's number (``layers.15``: what the sixteenth layer puts out), by the module's own path, or by a
TransformerLens hook (``blocks.15.hook_resid_post``); the name that files keep is the path within the base model, which
is the same with and without a head.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lce.foundations.errors import LceError
from lce.models.fast_linear import OneDnnLinear
from lce.models.logits import DECODERS, last_mixing_module, without_cache
from lce.models.places import Place, image_token

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SINK = 5
"""States so many times as long as usual are attention sinks: the first token's, and a few in 10,000 elsewhere."""
INPUT = ":input"
"""Ends the name of a site that is what goes into its module."""
HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post|attn_out|mlp_out)")
HOOKS = "blocks.N.hook_resid_pre, …hook_resid_post, …hook_attn_out and …hook_mlp_out"
PARTS = {
    "attn_out": ("attention.output.dense", "attention.attn", "self_attention.dense", "self_attn", "attn", "attention"),
    "mlp_out": ("output.dense", "mlp.dense_4h_to_h", "ffn.down_proj", "mlp", "feed_forward", "ffn"),
}
"""What puts out what a layer's two blocks add to its states, without the states themselves: the first that there is."""
NORMED = {"attn_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"}
"""The same in layers that normalise it before they add it (Gemma 2, OLMo 2): they have both."""


@dataclass(frozen=True)
class Site:
    """A place in a model, by its path within the base model."""

    name: str

    def module(self, model: nn.Module) -> nn.Module:
        """The module that puts out, or takes in, the states; LceError if ``model`` has none of this name."""
        base = getattr(model, "base_model", model)
        path = self.name.removesuffix(INPUT)
        try:
            return base.get_submodule(path)
        except AttributeError as error:
            raise LceError(f"site {self.name}: {type(model).__name__} has no module {path}") from error

    @property
    def is_input(self) -> bool:
        return self.name.endswith(INPUT)


def find_site(model: PreTrainedModel, name: str) -> Site:
    """The site of ``model`` that people call ``name``.

    Raises:
        LceError: there is none, or it is a hook of TransformerLens that is the output of no module of transformers.
    """
    if re.match(r"(blocks\.\d+\.)?(\w+\.)*hook_", name):
        return _site_of_hook(model, name)
    path = name.removesuffix(INPUT)
    base = model.base_model
    if found := re.fullmatch(r"layers\.(\d+)(\..+)?", path):
        stack, layers = layer_stack(model)
        if int(found[1]) >= len(layers):
            raise LceError(f"site {name}: the model has {len(layers)} layers, layers.0 to layers.{len(layers) - 1}")
        path = f"{stack}.{found[1]}{found[2] or ''}"
    elif model.base_model_prefix and base is not model:
        path = path.removeprefix(f"{model.base_model_prefix}.")
    if dict(base.named_modules()).get(path) in {None, *entrances(model)}:
        raise LceError(f"site {name}: the model has no such module; expected layers.N, a module's path, or {HOOKS}")
    return Site(path + name[len(name.removesuffix(INPUT)) :])


def _site_of_hook(model: PreTrainedModel, name: str) -> Site:
    found = HOOK.fullmatch(name)
    if not found:
        raise LceError(f"site {name}: is a hook of TransformerLens that lce cannot place; it knows {HOOKS}")
    number, kind = int(found[1]), found[2]
    layer = find_site(model, f"layers.{number}")
    if kind == "resid_pre":  # what goes into a layer is what the one before puts out
        return find_site(model, f"layers.{number - 1}" if number else f"layers.0{INPUT}")
    if kind == "resid_post":
        return layer
    inner = dict(layer.module(model).named_modules())
    parts = (NORMED[kind],) if set(NORMED.values()) <= set(inner) else PARTS[kind]
    part = next((part for part in parts if part in inner), None)
    if part is None:
        raise LceError(f"site {name}: a layer of {type(model).__name__} has no module called {' or '.join(parts)}")
    return Site(f"{layer.name}.{part}")


def hook_of(model: PreTrainedModel, site: Site) -> str:
    """What TransformerLens calls the ``site`` of ``model`` if it is the output of a layer; else the site's own name."""
    path, _, number = site.name.rpartition(".")
    is_layer = number.isdigit() and list(_stacks(model)) == [path]
    return f"blocks.{number}.hook_resid_post" if is_layer else site.name


def layer_stack(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The one stack of layers of ``model``, and its path within the base model.

    Raises:
        LceError: it has none, or several.
    """
    if len(stacks := _stacks(model)) != 1:
        found = f"several: {', '.join(stacks)}" if stacks else "none"
        raise LceError(f"site: expected a model with one stack of layers, found {found}; give the module's full path")
    return next(iter(stacks.items()))


def _stacks(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    text = model.config.get_text_config()
    count = getattr(text, "num_hidden_layers", None)
    # Beside its decoder, a model may have another with as many layers, which reads pictures.
    within = model.get_decoder() if text is not model.config else model.base_model
    inside = set(within.modules())
    lists = {path: part for path, part in model.base_model.named_modules() if isinstance(part, nn.ModuleList)}
    outer = {path: part for path, part in lists.items() if part in inside and not re.search(r"\.\d+\.", f".{path}.")}
    return {path: part for path, part in outer.items() if model.config.is_encoder_decoder or len(part) == count}


Change = Callable[[Tensor, Place], Tensor]
"""From states (batch, positions, width), or of a few positions (1, n, width), to what takes their place."""


def hook_in(model: nn.Module, site: Site, change: Change) -> Callable[[], None]:
    """Have the states at ``site`` be what ``change`` makes of them, until what is returned is called.

    Raises:
        LceError: the model has no such site.
    """
    module, place = site.module(model), Place(image_token(model))

    def changed(states: Any) -> Tensor:
        if not isinstance(states, Tensor) or not states.is_floating_point():
            raise LceError(f"site {site.name}: {type(module).__name__} has no states there")
        return change(states, place)

    def on_input(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments:
            return (changed(arguments[0]), *arguments[1:]), named
        return arguments, {**named, "hidden_states": changed(named.get("hidden_states"))}

    def on_output(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple | list):
            return (changed(output[0]), *output[1:])
        if isinstance(output, dict):
            output[next(iter(output))] = changed(next(iter(output.values())))
            return output
        return changed(output)

    def note(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        place.note(
            arguments, named
        )  # a function, which copies of the model share; a method would be copied with its place

    hooks = [entrance.register_forward_pre_hook(note, with_kwargs=True) for entrance in entrances(model)]
    if site.is_input:
        hooks.append(module.register_forward_pre_hook(on_input, with_kwargs=True))
    else:
        hooks.append(module.register_forward_hook(on_output))

    def remove() -> None:
        for hook in hooks:
            hook.remove()

    return remove


def entrances(model: nn.Module) -> set[nn.Module]:
    """What is called with texts: the base model, or a decoder within it alone, as in `log_probabilities_at`."""
    base, kind = getattr(model, "base_model", model), getattr(getattr(model, "config", None), "model_type", None)
    layers = last_mixing_module(cast("PreTrainedModel", model)) if kind in DECODERS else None
    return {base, base if layers is None else layers}


@contextmanager
def changed_at(model: nn.Module, site: Site, change: Change) -> Iterator[None]:
    """As `hook_in`, within the block."""
    remove = hook_in(model, site, change)
    try:
        yield
    finally:
        remove()


class _Reached(Exception):
    """The states that were asked for are there; the layers behind them need not be run."""


def states_at(model: PreTrainedModel, site: Site, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The states at ``site`` of a (B, L) batch: (B, L, width). What comes behind the site is not run."""
    found: list[Tensor] = []

    def keep(states: Tensor, _: Place) -> Tensor:
        found.append(states)
        raise _Reached

    try:
        with changed_at(model, site, keep), OneDnnLinear():
            model(input_ids=input_ids, attention_mask=attention_mask, **without_cache(model))
    except _Reached:
        if found[0].shape[:2] != input_ids.shape or found[0].ndim != 3:
            raise LceError(f"site {site.name}: {type(model).__name__} has no state of each token there") from None
        return found[0]
    raise LceError(f"site {site.name}: a forward pass of {type(model).__name__} does not come by it")


def width_at(model: PreTrainedModel, site: Site) -> int:
    """Number of values of a state at ``site``."""
    with torch.inference_mode():
        tokens = torch.ones(2, 3, dtype=torch.long, device=model.device)
        return states_at(model, site, tokens, torch.ones_like(tokens)).shape[-1]
