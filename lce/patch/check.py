"""What a patch finds in a model: whether it can be put in or taken out, and whether it is in it."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeVar

from lce.foundations.errors import LceError
from lce.foundations.threads import by_tensor, ordered
from lce.patch.carry_out import Which, carried_out
from lce.patch.record import same_bits
from lce.patch.stored_changes import StoredChanges
from lce.storage.arrays import digest
from lce.storage.checkpoint import Found, Readable, Reader, aligned

Result = TypeVar("Result")
State = Literal["base", "patched"]


@contextmanager
def naming(model: Reader[Readable]) -> Iterator[None]:
    """Within the block, an LceError says which model it is about."""
    try:
        yield
    except LceError as error:
        raise LceError(f"{model.title}: {error}") from error


def patched_entries(changes: StoredChanges, model: Reader[Found], which: Which = "new") -> dict[str, Found]:
    """The parameters of ``model`` that a patch changes, by the patch's names.

    Raises:
        LceError: one is missing or of another shape or dtype, or the patch has no ``which`` values.
    """
    if which not in changes.parts:
        raise LceError("this patch was made without the old values, so it cannot be taken back")
    model.untie(changes.parameters)
    names = {patched: name for name, patched in aligned(model.entries, changes.parameters).items()}
    for name, wanted in changes.parameters.items():
        if name not in names:
            raise LceError(f"{model.title}: the model has no parameter {name}; it is not the base of this patch")
        found = model.entries[names[name]]
        if (found.shape, found.code) != (wanted.shape, wanted.dtype):
            raise LceError(
                f"{model.title}: {name} is {found.code} {found.shape} in the model, {wanted.dtype} {wanted.shape} in "
                "the patch; it is not the base of this patch"
            )
    return {name: model.entries[names[name]] for name in changes.parameters}


def check(changes: StoredChanges, model: Reader[Found], which: Which = "new") -> dict[str, Found]:
    """As `patched_entries`, all of them read and proved.

    Raises:
        LceError: the model is not what the patch can be put into ("new") or taken out of ("old"), or would not become
            what the patch says.
    """
    entries = patched_entries(changes, model, which)

    def work(name: str) -> None:
        deque(carried_out(changes, name, which, entries[name].chunks()), maxlen=0)

    with naming(model):
        deque(_over(work, entries), maxlen=0)
    return entries


def verify(changes: StoredChanges, model: Reader[Readable]) -> State:
    """Whether ``model`` is a patch's "base", or that base "patched".

    Raises:
        LceError: it is neither, or the patch does not hold enough to tell.
    """
    entries = patched_entries(changes, model)

    def found(name: str) -> tuple[bool, bool]:
        """Whether a parameter is the base's, and whether it is the base's with the patch applied."""
        entry, about, change = entries[name], changes.parameters[name], changes[name]
        now = digest(entry.chunks(), entry.code, entry.shape)
        if about.sha256_after is not None:
            return now == about.sha256, now == about.sha256_after
        if now == about.sha256:
            return True, same_bits(change.new, change.old)
        if change.old is None:
            raise LceError("is not the base; whether it has this patch cannot be told without old values")
        try:
            deque(carried_out(changes, name, "old", entry.chunks()), maxlen=0)
        except LceError:
            return False, False
        return False, True

    states: set[State] = set()
    with naming(model):
        for name, (is_base, is_patched) in _over(found, entries):
            if not is_base and not is_patched:
                raise LceError(f"its {name} is neither the patch's base nor the base with the patch applied")
            if is_base != is_patched:  # both where the patch puts in what was there
                states.add("base" if is_base else "patched")
        if len(states) > 1:
            raise LceError("has the patch applied in some of its parameters only")
    return states.pop() if states else "base"


def _over(work: Callable[[str], Result], entries: Mapping[str, Readable]) -> Iterator[tuple[str, Result]]:
    """What ``work`` makes of each patched parameter, in order."""
    sizes = {name: entry.nbytes for name, entry in entries.items()}
    return ordered(work, entries, by_tensor("Checking the model", sizes))
