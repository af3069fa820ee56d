"""Between torch's tensors and the entries of safetensors files."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lce.storage.arrays import CHUNK, Array, combined, digest
from lce.storage.checkpoint import Checkpoint
from lce.storage.safetensors_file import Entry, TensorWriter, digests_of, read_checked, read_header, read_record

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}


def to_torch(array: Array, code: str) -> Tensor:
    """The same memory as a tensor of the type that ``code`` names."""
    return torch.from_numpy(array).view(DTYPES[code])


def to_numpy(tensor: Tensor) -> Array:
    """The entries as a file has them, flat; the same memory if the tensor is contiguous and on the processor."""
    flat = tensor.detach().cpu().contiguous().flatten()
    if flat.dtype == torch.bfloat16:
        flat = flat.view(torch.uint16)
    elif flat.dtype.is_floating_point and flat.element_size() == 1:
        flat = flat.view(torch.uint8)
    array: Array = flat.numpy()
    return array


def read_tensor(entry: Entry, first: int = 0, last: int | None = None) -> Tensor:
    """As `Entry.read`."""
    return to_torch(entry.read(first, last), entry.code)


def write_file(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write ``tensors`` of any shape with what is to be said about them, so that `read_file` notices any damage.

    They lie in the file in order of their names, as in all files of the library: random baselines go by a mask's order.
    """
    with TensorWriter.to(path) as writer:
        writer.record = dict(record)
        for name, tensor in sorted(tensors.items()):
            writer.add(name, to_numpy(tensor), CODES[tensor.dtype], shape=tuple(tensor.shape))


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the tensors of a file that `write_file` wrote; LceError if it is missing or damaged."""
    metadata, entries = read_header(path)
    record = read_record(metadata, path)
    digests = digests_of(record, path)
    tensors = {name: to_torch(read_checked(entry, digests), entry.code) for name, entry in entries.items()}
    return record, {name: tensor.view(entries[name].shape) for name, tensor in tensors.items()}


def read_tensors(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The named tensors of a checkpoint.

    Raises:
        LceError: a file is damaged, or a tensor is missing.
    """
    checkpoint = Checkpoint(folder)
    entries = {name: checkpoint.entry(name) for name in names}
    return {name: read_tensor(entry).view(entry.shape) for name, entry in entries.items()}


def tensor_digest(tensor: Tensor, indices: Tensor | None = None, values: Tensor | None = None) -> str:
    """As `lce.storage.arrays.digest`, of a tensor in memory, which stays as it is."""
    chunks = _chunks(tensor) if indices is None else copied_chunks(tensor)
    places = None if indices is None else to_numpy(indices)
    return digest(chunks, CODES[tensor.dtype], tensor.shape, places, None if values is None else to_numpy(values))


def copied_chunks(tensor: Tensor) -> Iterator[tuple[int, Array]]:
    """Position of its first entry, and a flat copy of the entries, of one chunk of a tensor after the other."""
    return ((first, chunk.copy()) for first, chunk in _chunks(tensor))


def _chunks(tensor: Tensor) -> Iterator[tuple[int, Array]]:
    flat = tensor.detach().flatten()
    return ((first, to_numpy(flat[first : first + CHUNK])) for first in range(0, len(flat), CHUNK))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of ``tensors``, in order of the names."""
    return combined({name: tensor_digest(tensor) for name, tensor in tensors.items()})
