"""Hugging Face checkpoint folders as files: which tensors they hold, under which names, and what identifies them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from lce.foundations.errors import LceError
from lce.foundations.files import read_json
from lce.storage.arrays import Array, bits
from lce.storage.hub import resolve, to_convert
from lce.storage.safetensors_file import Entry, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"

BUFFERS = re.compile(r"(position_ids|token_type_ids|rotary_emb\.inv_freq)$")
MASKS = re.compile(r"(^|\.)(attn|attention)\.(masked_)?bias$")
"""What old checkpoints store beside the weights: constants that the architecture makes anew; causal masks have 0 or 4
dimensions."""
EMBEDDING = re.compile(r"(^|\.)(word_embeddings|embed_tokens|wte|shared|embed_in|tok_embeddings)\.weight$")
HEAD = re.compile(r"(^|\.)(lm_head|decoder|embed_out|proj_out)\.weight$")
"""Names under which tied weights are stored once more."""
OLD_NORM = re.compile(r"(norm[^.]*)\.(gamma|beta)$", re.IGNORECASE)


class Readable(Protocol):
    """A tensor, in a file or in memory, as an `Entry` shows it. Chunks may be written into; that changes no tensor."""

    @property
    def code(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def chunks(self) -> Callable[[], Iterator[tuple[int, Array]]]: ...


Found = TypeVar("Found", bound=Readable)
Found_co = TypeVar("Found_co", bound=Readable, covariant=True)


class Reader(Protocol[Found_co]):
    """A model whose tensors can be read: a `Checkpoint`, or one in memory. ``title`` says to people which it is."""

    @property
    def title(self) -> str: ...
    @property
    def entries(self) -> Mapping[str, Found_co]: ...
    def untie(self, names: Collection[str]) -> None: ...


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, single or sharded, in order.

    Raises:
        LceError: the folder holds none, or the index names one that is missing or outside of it.
    """
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if not (folder / INDEX).exists():
        advice = to_convert(path.name for path in folder.iterdir())
        raise LceError(f"{folder}: holds neither {SINGLE} nor {INDEX}; lce works on safetensors checkpoints{advice}")
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise LceError(f"{folder / INDEX}: is no index of a sharded checkpoint; it has no weight_map")
    names = sorted(set(map(str, index["weight_map"].values())))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise LceError(f"{folder / INDEX}: names {name!r}, which is no file of this folder")
    return [folder / name for name in names]


def canonical(name: str) -> str:
    """The name that a parameter has in today's models: a normalisation's gamma is its weight, its beta its bias."""
    return OLD_NORM.sub(lambda old: f"{old[1]}.{'weight' if old[2] == 'gamma' else 'bias'}", name)


class Checkpoint:
    """The tensors of a checkpoint, a folder or one of the hub, by canonical name; only headers are read at first.

    Attributes:
        entries: where each tensor lies. Constants such as position_ids and second copies of tied weights are left out.
        copies: for a tied weight, where its second copies lie: they must be changed with it.

    Raises:
        LceError: the folder is no safetensors checkpoint, is damaged, or holds a tensor twice.
    """

    def __init__(self, model: str | Path) -> None:
        self.title, self.folder = str(model), resolve(model)
        self.files = weight_files(self.folder)
        self.entries: dict[str, Entry] = {}
        for path in self.files:
            for stored, entry in read_header(path)[1].items():
                name = canonical(stored)
                if name in self.entries:
                    raise LceError(f"{path}: holds {stored}, which {self.entries[name].path.name} holds already")
                if not (BUFFERS.search(name) or (MASKS.search(name) and len(entry.shape) in (0, 4))):
                    self.entries[name] = entry
        self.copies: dict[str, list[Entry]] = {}
        for main, copy in self._tied():
            self.copies.setdefault(main, []).append(self.entries.pop(copy))

    def _tied(self) -> list[tuple[str, str]]:
        """(weight, its copy): a first embedding, and the further embeddings and heads with the same bytes.

        Heads of a model that says that it ties none are weights of their own.
        """
        config = read_json(self.folder / CONFIG) if (self.folder / CONFIG).exists() else {}
        ties_heads = not isinstance(config, dict) or config.get("tie_word_embeddings") is not False
        outside = sorted(name for name, entry in self.entries.items() if len(entry.shape) == 2)
        mains = [name for name in outside if EMBEDDING.search(name)]
        mains.sort(key=lambda name: ("shared" not in name, name))
        heads = [name for name in outside if HEAD.search(name)] if ties_heads else []
        pairs: list[tuple[str, str]] = []
        for place, copy in enumerate(mains + heads):
            for main in mains[:place]:
                if main not in (pair[1] for pair in pairs) and self._same_bytes(main, copy):
                    pairs.append((main, copy))
                    break
        for name in [name for name in self.entries if name.endswith(".decoder.bias")]:
            main = name.replace(".decoder.bias", ".bias")
            if ties_heads and main in self.entries and self._same_bytes(main, name):
                pairs.append((main, name))
        return pairs

    def _same_bytes(self, one: str, other: str) -> bool:
        first, second = self.entries[one], self.entries[other]
        if (first.code, first.shape) != (second.code, second.shape):
            return False
        return all(
            np.array_equal(bits(a), bits(b)) for (_, a), (_, b) in zip(first.chunks(), second.chunks(), strict=True)
        )

    def untie(self, names: Collection[str]) -> None:
        """Make those of ``names`` that are second copies weights of their own."""
        for main, copies in list(self.copies.items()):
            own = [copy for copy in copies if canonical(copy.name) in names]
            self.entries |= {canonical(copy.name): copy for copy in own}
            self.copies[main] = [copy for copy in copies if copy not in own]

    def entry(self, name: str) -> Entry:
        """Raises LceError if there is no tensor of this name."""
        if name not in self.entries:
            raise LceError(f"{self.folder}: has no tensor {name}")
        return self.entries[name]

    @cached_property
    def by_path(self) -> dict[Path, list[tuple[str | None, Entry]]]:
        """Per file, every stored tensor with its name here, None for what is left out of `entries`."""
        names = {(entry.path, entry.name): name for name, entry in self.entries.items()}
        names |= {(entry.path, entry.name): name for name, copies in self.copies.items() for entry in copies}
        return {
            path: [(names.get((path, entry.name)), entry) for entry in read_header(path)[1].values()]
            for path in self.files
        }


def aligned(names: Iterable[str], wanted: Collection[str]) -> dict[str, str]:
    """Each of ``names`` with the name that ``wanted`` has for it: itself, or with a prefix more or less.

    A model saved without its head leaves out the prefix (transformer., bert.) with which it is part of the whole one.
    """
    names, known = list(names), set(wanted)
    firsts = [Counter(name.partition(".")[0] for name in side).most_common(8) for side in (wanted, names)]
    longer = [{name: f"{first}.{name}" for name in names} for first, _ in firsts[0]]
    shorter = [{name: name.removeprefix(f"{first}.") for name in names} for first, _ in firsts[1]]
    ways = [{name: name for name in names}, *longer, *shorter]
    best = max(ways, key=lambda way: sum(new in known for new in way.values()))
    return {name: new if new in known else name for name, new in best.items()}


def common_tensors(
    one: Reader[Found], other: Reader[Found], wanted: Callable[[str, Found], bool], skip_unmatched: bool
) -> dict[str, str]:
    """The ``wanted`` tensors that both have, in the first model's order and by its names, with the other's names.

    What is a second copy of a tied weight in one of them is a tensor of its own if it is one in the other.

    Raises:
        LceError: one of them is in one model only and is not to be skipped, or has two shapes, or none is left.
    """
    one.untie(other.entries)
    other.untie(one.entries)
    names = [name for name, entry in one.entries.items() if wanted(name, entry) and entry.size]
    others = aligned((name for name, entry in other.entries.items() if entry.size), one.entries)
    pairs = {first: second for second, first in others.items() if wanted(first, other.entries[second])}
    for alone, side in ((set(names) - set(pairs), one), (set(pairs) - set(names), other)):
        if alone and not skip_unmatched:
            listed = ", ".join(sorted(alone)[:5]) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
            raise LceError(f"only {side.title} has {listed}; to leave such tensors out, give --skip_unmatched true")
    common = {name: pairs[name] for name in names if name in pairs}
    for name, counterpart in common.items():
        if (first := one.entries[name].shape) != (second := other.entries[counterpart].shape):
            raise LceError(f"{name}: has shape {first} in {one.title}, {second} in {other.title}")
    if not common:
        raise LceError(f"{one.title} and {other.title}: have no such tensor in common")
    return common
