"""What the metadata of a patch file says, written and read: strictly, because a patch comes from somebody else.

"format" names the kind of body: here sparse weights. The vectors and the site of features or of a direction are another
kind (`lce.patch.hooks`).
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lce.foundations.errors import LceError
from lce.storage.arrays import Array, bits, combined
from lce.storage.safetensors_file import read_header, read_record

FORMAT, HOOK_FORMAT = "lce-patch", "lce-hook-patch"
FORMAT_VERSION = 1
REQUIRED = {"format", "version", "parameters", "base_fingerprint", "provenance"}
NAME = re.compile(r"[\w-]+(\.[\w-]+)*")
PATCHABLE = ("F64", "F32", "F16", "BF16")
"""Types of weights that can be patched, as safetensors files name them."""
NO_WEIGHTS = (
    "is added to states while the model runs, by a hook: how much depends on each state, so it cannot be written as "
    "weights; lce.from_pretrained(base, patch=…) sets the hook"
)
"""Why there is no folder, nor an adapter, with such a patch applied."""
MOST_SIDES, MOST_WEIGHTS, MOST_NESTED = 8, 2**40, 20
"""Beyond what any model has; who claims more wants memory or time."""


@dataclass(frozen=True)
class Parameter:
    """What a patch says of one parameter."""

    shape: tuple[int, ...]
    dtype: str
    """The file's code of its type."""
    count: int
    sha256: str
    sha256_after: str | None
    sha256_old: str | None = None
    """Of the values that change, before the edit: it identifies them where the patch leaves them out."""

    @property
    def size(self) -> int:
        return prod(self.shape)


def base_fingerprint(parameters: Mapping[str, Parameter]) -> str:
    return combined({name: parameter.sha256 for name, parameter in parameters.items()})


def record_of(parameters: Mapping[str, Parameter], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a patch."""
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "base_fingerprint": base_fingerprint(parameters),
        "parameters": {name: asdict(parameter) for name, parameter in parameters.items()},
        "provenance": {**provenance, "library_version": version("lce")},
    }


def read_parameters(record: dict[str, Any]) -> dict[str, Parameter]:
    """The parameters of a patch; LceError where the metadata is not what `record_of` writes."""
    if record.get("format") != FORMAT:
        raise LceError("is no lce patch")
    if record.get("version") != FORMAT_VERSION:
        raise LceError(
            f"has format version {repr(record.get('version'))[:20]}; this lce reads version {FORMAT_VERSION}"
        )
    if missing := REQUIRED - set(record):
        raise LceError(f"its metadata lacks {sorted(missing)}")
    if not isinstance(record["parameters"], dict) or not record["parameters"]:
        raise LceError("its metadata lists no parameters")
    if not isinstance(record["provenance"], dict) or not is_shallow(record["provenance"], MOST_NESTED):
        raise LceError(f"its provenance is no mapping, or nested more than {MOST_NESTED} deep")
    parameters = {name: _parameter(name, about) for name, about in record["parameters"].items()}
    if record["base_fingerprint"] != base_fingerprint(parameters):
        raise LceError("its base fingerprint is not that of the parameters it lists")
    return parameters


def _parameter(name: str, about: Any) -> Parameter:
    check_name(name)
    wanted = {"shape": list, "dtype": str, "count": int, "sha256": str, "sha256_after": str | None}
    if not isinstance(about, dict) or any(not isinstance(about.get(key, ...), kind) for key, kind in wanted.items()):
        raise LceError(f"{name}: its metadata does not give shape, dtype, count, sha256 and sha256_after")
    shape = tuple(about["shape"])
    is_shape = len(shape) <= MOST_SIDES and all(type(side) is int and 1 <= side < MOST_WEIGHTS for side in shape)
    if not is_shape or prod(shape) >= MOST_WEIGHTS:
        raise LceError(f"{name}: {str(shape)[:80]} is no shape of a parameter")
    if about["dtype"] not in PATCHABLE:
        raise LceError(f"{name}: {about['dtype'][:20]!r} is none of {', '.join(PATCHABLE)}")
    if type(about["count"]) is not int or not 1 <= about["count"] <= prod(shape):
        raise LceError(f"{name}: {str(about['count'])[:20]} weights of a parameter of shape {shape} cannot change")
    digests = [about["sha256"], about["sha256_after"], about.get("sha256_old")]
    for digest in digests:
        if digest is not None and not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
            raise LceError(f"{name}: {str(digest)[:80]!r} is no SHA-256")
    return Parameter(shape, about["dtype"], about["count"], *digests)


def is_shallow(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(is_shallow(one, levels - 1) for one in inner)


def check_name(name: str) -> None:
    """Raises LceError for what cannot be a parameter's name."""
    if not NAME.fullmatch(name):
        raise LceError(f"{name[:80]!r}: is no name of a parameter; these are words with dots between them")


def same_bits(one: Array, other: Array | None) -> bool:
    """Whether two vectors are the same, zeros' signs and NaN included; nothing is the same as None."""
    return other is not None and np.array_equal(bits(one), bits(other))


def is_finite(values: Array, dtype: str) -> bool:
    """Whether all ``values`` of the type ``dtype`` are finite numbers."""
    if dtype == "BF16":
        return bool((values & 0x7F80 != 0x7F80).all())
    return bool(np.isfinite(values).all())


def as_float32(values: Array, dtype: str) -> Array:
    """The ``values`` as float32."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def is_hook_patch(path: str | Path) -> bool:
    """Whether the file at ``path`` says that it is a hook patch; LceError if it is no safetensors file."""
    return read_record(read_header(path)[0], path).get("format") == HOOK_FORMAT
