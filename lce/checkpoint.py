"""Hugging Face checkpoint folders as files: which weights they hold, and what identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lce.errors import LceError
from lce.files import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def resolve(name: str | Path) -> Path:
    """The local folder of a checkpoint: ``name`` itself, or a download of the hub model of that name.

    Raises:
        LceError: there is neither such a folder nor such a model.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LceError(f"model {name}: no such folder, and the hub does not give it ({reason})") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, single or sharded, in order.

    Raises:
        LceError: the folder holds none, or the index names one that is missing or outside of it.
    """
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if not (folder / INDEX).exists():
        raise LceError(f"{folder}: holds neither {SINGLE} nor {INDEX}; lce works on safetensors checkpoints")
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise LceError(f"{folder / INDEX}: is no index of a sharded checkpoint; it has no weight_map")
    names = sorted(set(map(str, index["weight_map"].values())))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise LceError(f"{folder / INDEX}: names {name!r}, which is no file of this folder")
    return [folder / name for name in names]


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise LceError(f"{path}: cannot be read ({error})") from error


def read_file(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file; LceError if it is missing or damaged."""
    with _opened(path) as file:
        names = file.keys()
        return file.metadata() or {}, {name: file.get_tensor(name) for name in names}


def read_record(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What lce wrote about a file of its own (empty for any other file), and the tensors."""
    metadata, tensors = read_file(path)
    try:
        record = json.loads(metadata.get("lce", "{}"))
    except ValueError as error:
        raise LceError(f"{path}: cannot be read (its metadata is no JSON: {error})") from error
    return record if isinstance(record, dict) else {}, tensors


def tensor_names(folder: Path) -> set[str]:
    """Names of all tensors of a checkpoint."""
    names: set[str] = set()
    for path in weight_files(folder):
        with _opened(path) as file:
            names |= set(file.keys())
    return names


def read_tensors(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The named tensors of a checkpoint.

    Raises:
        LceError: a file is damaged, or a tensor is missing.
    """
    wanted = list(names)
    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with _opened(path) as file:
            found |= {name: file.get_tensor(name) for name in set(file.keys()) & set(wanted)}
    if missing := [name for name in wanted if name not in found]:
        raise LceError(f"{folder}: has no tensor {missing[0]} ({len(missing)} of {len(wanted)} are missing)")
    return {name: found[name] for name in wanted}


def digest(tensor: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and bytes."""
    content = tensor.detach().cpu().contiguous()
    hasher = hashlib.sha256(f"{content.dtype} {tuple(content.shape)}\n".encode())
    hasher.update(content.flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def combined(digests: Mapping[str, str]) -> str:
    """One fingerprint of named tensors from their digests."""
    lines = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of ``tensors``, in order of the names."""
    return combined({name: digest(tensor) for name, tensor in tensors.items()})
