"""What identifies a model in memory, whatever head it has and in whatever precision it was loaded."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lce.storage.arrays import combined
from lce.storage.torch_bridge import tensor_digest

_known: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()
"""Fingerprints by model, each with the state of the model's parameters that it was worked out from."""


def model_fingerprint(model: nn.Module) -> str:
    """SHA-256 over the parameters of the base model, without the head, in float32.

    A model that was stored in bfloat16 and loaded in float32 has the same one. It is worked out again where parameters
    were written to: torch counts most writes, but not those of fused optimisers, which the sums of their bits show.
    """
    base = getattr(model, "base_model", model)
    parameters = dict(base.named_parameters())
    state = tuple((name, p.data_ptr(), p._version, _sum_of_bits(p)) for name, p in parameters.items())
    if base not in _known or _known[base][0] != state:
        _known[base] = state, combined({name: tensor_digest(p.detach().float()) for name, p in parameters.items()})
    return _known[base][1]


def _sum_of_bits(parameter: Tensor) -> int:
    """The sum of the entries, read as integers of their size; much faster than their SHA-256."""
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[parameter.element_size()]
    return int(parameter.detach().view(whole).sum())
