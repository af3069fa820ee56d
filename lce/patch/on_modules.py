"""Patches on models in memory."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from lce.patch.carry_out import Which, carried_out
from lce.patch.format import Patch
from lce.patch.record import Parameter, RawChange
from lce.storage.changes import Change, Changes, write_values_
from lce.storage.checkpoint import aligned, canonical
from lce.storage.torch_bridge import CODES, copied_chunks, tensor_digest, to_numpy, to_torch


def apply(patch: Patch, model: nn.Module) -> nn.Module:
    """As `Patch.apply`."""
    _check(patch, model, "new")
    edited = copy.deepcopy(model)
    write_values_(_parameters(patch, edited), Tensors(patch), "new")
    return edited


def apply_(patch: Patch, model: nn.Module) -> None:
    """As `Patch.apply_`."""
    _check(patch, model, "new")
    write_values_(_parameters(patch, model), Tensors(patch), "new")


def revert_(patch: Patch, model: nn.Module) -> None:
    """As `Patch.revert_`."""
    patch.check_revertible()
    _check(patch, model, "old")
    write_values_(_parameters(patch, model), Tensors(patch), "old")


def _check(patch: Patch, model: nn.Module, which: Which) -> None:
    """Raises LceError unless ``model`` is what the patch was made for, and becomes what it says; changes nothing."""
    parameters = _parameters(patch, model)
    for name in patch.parameters:
        tensor = parameters.get(name)
        patch.check_parameter(
            name, None if tensor is None else (tuple(tensor.shape), CODES.get(tensor.dtype, str(tensor.dtype)))
        )
    for name in patch.parameters:
        deque(carried_out(patch, name, which, copied_chunks(parameters[name])), maxlen=0)


class Tensors(Mapping[str, Change]):
    """The changes of a patch as torch's tensors, made when they are asked for."""

    def __init__(self, patch: Patch) -> None:
        self.patch = patch

    def __getitem__(self, name: str) -> Change:
        change, about = self.patch.changes[name], self.patch.parameters[name]
        new, old, full = (
            None if part is None else to_torch(part, about.dtype) for part in (change.new, change.old, change.full)
        )
        assert new is not None, "every change has new values"
        return Change(to_torch(change.indices, "I64"), new, about.shape, old, full)

    def __iter__(self) -> Iterator[str]:
        return iter(self.patch.parameters)

    def __len__(self) -> int:
        return len(self.patch.parameters)


def stored(change: Change) -> RawChange:
    """A change of tensors as it lies in a file."""
    old, full = (None if part is None else to_numpy(part) for part in (change.old, change.full))
    return RawChange(to_numpy(change.indices), to_numpy(change.new), old, full)


def described(change: Change, sha256: str, sha256_after: str | None) -> Parameter:
    """What a patch with ``change`` says of its parameter."""
    return Parameter(change.shape, CODES[change.new.dtype], len(change.indices), sha256, sha256_after)


def created(changes: Changes, base: Mapping[str, Tensor]) -> tuple[dict[str, Parameter], dict[str, RawChange]]:
    """The parts of `Patch.create`."""
    parameters = {
        name: described(change, tensor_digest(base[name]), tensor_digest(base[name], change.indices, change.new))
        for name, change in changes.items()
    }
    return parameters, {name: stored(change) for name, change in changes.items()}


def _parameters(patch: Patch, model: nn.Module) -> dict[str, Tensor]:
    """By the names that the patch has for them."""
    parameters = {canonical(name): parameter.detach() for name, parameter in model.named_parameters()}
    names = aligned(parameters, patch.parameters)
    return {names[name]: parameter for name, parameter in parameters.items()}
