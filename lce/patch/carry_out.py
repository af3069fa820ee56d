"""One parameter with a patch put in or taken out, chunk by chunk, and proved right before anyone keeps the result.

The proof is a SHA-256 of the whole result. Together with the values that are expected where the patch changes something
(or, where it leaves them out, their own SHA-256) it also proves that the parameter was the base, so that a parameter is
hashed once. What the patch cannot prove in this way, because nobody knew the whole base when it was made, is proved by
the SHA-256 of the parameter as it was before.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from lce.foundations.errors import LceError
from lce.patch.record import same_bits
from lce.patch.stored_changes import StoredChanges
from lce.storage.arrays import Array, as_bytes, hasher, within

Which = Literal["new", "old"]
"""What is put in: the patch's new values (apply), or its old ones (revert)."""


def carried_out(
    changes: StoredChanges, name: str, which: Which, chunks: Iterable[tuple[int, Array]]
) -> Iterator[tuple[int, Array]]:
    """The ``chunks`` of parameter ``name``, each with the position of its first entry, with values put in, in place.

    Raises:
        LceError: the parameter is not what the patch was made for, or does not become what the patch says. This may be
            known after the last chunk only, so nothing may be kept before.
    """
    about, change = changes.parameters[name], changes[name]
    before: str | None
    after: str | None
    if which == "new":
        put, expected, before, after, expected_digest = (
            change.new, change.old, about.sha256, about.sha256_after, about.sha256_old,
        )  # fmt: skip
    else:
        assert change.old is not None, "checked before"
        put, expected, before, after, expected_digest = (
            change.old, change.new, about.sha256_after, about.sha256, None,
        )  # fmt: skip
    is_proved = after is not None and (expected is not None or expected_digest is not None)
    start, result = (hasher(about.dtype, about.shape) for _ in range(2))
    found_old = hasher(about.dtype, put.shape)
    for first, chunk in chunks:
        here = within(first, len(chunk), change.indices)
        places = change.indices[here] - first
        found = chunk[places]
        if expected is not None and not same_bits(found, expected[here]):
            raise LceError(_refusal(name, which, same_bits(found, put[here])))
        if expected is None and expected_digest is not None:
            found_old.update(as_bytes(found))
        if not is_proved:
            start.update(as_bytes(chunk))
        chunk[places] = put[here]
        if after is not None:
            result.update(as_bytes(chunk))
        yield first, chunk
    is_already = expected is None and after is not None and result.hexdigest() == after
    if expected is None and expected_digest is not None and found_old.hexdigest() != expected_digest:
        raise LceError(_refusal(name, which, is_already))
    if not is_proved and before is not None and start.hexdigest() != before:
        raise LceError(_refusal(name, which, is_already))
    if after is not None and result.hexdigest() != after:
        raise LceError(
            f"the model's {name} does not become what the patch makes of its base: the model is not the base of this "
            "patch, or the patch is damaged"
        )


def _refusal(name: str, which: Which, is_put_already: bool) -> str:
    """Why a model with other values is refused."""
    if which == "new":
        hint = " (the patch is applied already)" if is_put_already else ""
        return f"the model's {name} has other values; it is not the base of this patch{hint}"
    hint = " (the patch is not applied)" if is_put_already else ""
    return f"the model's {name} has other values; it is not the base with this patch applied{hint}"
