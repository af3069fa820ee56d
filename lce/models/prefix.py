"""What comes before a site, computed once for many edits there.

Edits of the states that a layer puts out leave everything before it as it is. While texts are read again and again
under one edit after the other, the layers up to the site need not run again: their states are kept by what the model
reads, and every number stays the same, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lce.foundations.errors import LceError
from lce.models.sites import INPUT, Site, entrances, layer_stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_MEMORY = 2e9
"""States that are kept at most [bytes]; what is read after that is computed each time."""


class PrefixCache:
    """The states of ``model`` at a ``site`` that is the output of a layer, by what was read.

    For a site of another kind, or at the last layer, nothing is kept.
    """

    def __init__(self, model: PreTrainedModel, site: Site, most_memory: float = MOST_MEMORY) -> None:
        self.model, self.most_memory = model, most_memory
        self.kept: dict[str, Any] = {}
        self.size = 0
        self.is_tuple = False
        """Whether a layer puts out its states as the first of several things."""
        self.site = site
        self.layers: list[nn.Module] = []
        """Those up to the site."""
        self.behind: list[str] = []
        """The paths of those behind it."""
        try:
            path, stack = layer_stack(model)
        except LceError:
            return
        number = site.name.removeprefix(f"{path}.")
        if number.isdigit() and int(number) < len(stack) - 1:
            self.layers = list(stack[: int(number) + 1])
            self.behind = [f"{path}.{i}" for i in range(int(number) + 1, len(stack))]

    def is_before(self, site: Site) -> bool:
        """Whether an edit at ``site`` leaves what is kept as it is: one there, or in a layer behind it."""
        path = site.name.removesuffix(INPUT)
        return site == self.site or any(f"{path}.".startswith(f"{layer}.") for layer in self.behind)

    @contextmanager
    def reused(self) -> Iterator[None]:
        """Within the block, what ``model`` reads again goes on from the site at once; its weights must not change."""
        key: list[str | None] = [None]

        def note(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            key[0] = _key(arguments, named)

        def run(layer: nn.Module, forward: Any, *arguments: Any, **named: Any) -> Any:
            if key[0] is None:
                return forward(*arguments, **named)
            is_last = layer is self.layers[-1]
            if key[0] in self.kept:
                states = arguments[0] if arguments else named["hidden_states"]
                return self.kept[key[0]] if is_last else self._like(states)
            found = forward(*arguments, **named)
            self.is_tuple = isinstance(found, tuple)
            if is_last:
                self._keep(key[0], found)
            return found

        handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in entrances(self.model)]
        for layer in self.layers:
            layer.forward = partial(run, layer, layer.forward)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for layer in self.layers:
                del layer.forward  # the class's own comes to light again

    def _like(self, states: Tensor) -> Any:
        """``states`` as a layer puts them out."""
        return (states,) if self.is_tuple else states

    def _keep(self, key: str, found: Any) -> None:
        states = found[0] if isinstance(found, tuple) else found
        if states.requires_grad or self.size + states.nbytes > self.most_memory:
            return
        self.size += states.nbytes
        self.kept[key] = found


def _key(arguments: tuple[Any, ...], named: dict[str, Any]) -> str | None:
    """What identifies all that the model reads; None where it reads on from a cache, fills one, or is to put out what
    the layers before the site made.
    """
    if named.get("past_key_values") is not None or named.get("use_cache") is not False:
        return None
    if named.get("output_hidden_states") or named.get("output_attentions"):
        return None
    digest = hashlib.sha256()
    for name, value in [*((str(i), value) for i, value in enumerate(arguments)), *sorted(named.items())]:
        if isinstance(value, Tensor):
            whole = value.detach().cpu().contiguous()
            digest.update(f"{name} {whole.dtype} {tuple(whole.shape)} {value.device}".encode())
            digest.update(whole.view(torch.uint8).numpy().tobytes() if whole.numel() else b"")
        elif value is None or isinstance(value, bool | int | float | str):
            digest.update(f"{name} {value}".encode())
        else:
            return None
    return digest.hexdigest()
