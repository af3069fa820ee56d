"""Patch files with one thing changed, by a fuzzer that knows the format."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

CODES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "F8_E4M3", "X"]
NUMBERS = [0, 1, -1, 2, 3, 7, 255, 256, 65535, 2**31, 2**32, 2**40, 2**63, 10**30, 1.5, True, None, "1", [], {}]


class File:
    """A safetensors file taken apart."""

    def __init__(self, content: bytes) -> None:
        length = struct.unpack("<Q", content[:8])[0]
        self.header: dict[str, Any] = json.loads(content[8 : 8 + length])
        self.data = bytearray(content[8 + length :])

    @property
    def record(self) -> dict[str, Any]:
        about: dict[str, Any] = json.loads(self.header["__metadata__"]["lce"])
        return about

    @record.setter
    def record(self, about: dict[str, Any]) -> None:
        self.header["__metadata__"]["lce"] = json.dumps(about)

    def names(self, part: str = "") -> list[str]:
        return [name for name in self.header if name.startswith(part) and name != "__metadata__"]

    def joined(self) -> bytes:
        text = json.dumps(self.header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + bytes(self.data)


def value(file: File, random: Random) -> None:
    """A bit of a new, old or full value."""
    flip_in(file, random, random.choice([part for part in ("new/", "old/", "full/") if file.names(part)]))


def step(file: File, random: Random) -> None:
    """A bit of a step, or a step that changes places with the next one."""
    if random.random() < 0.7:
        flip_in(file, random, "steps/")
        return
    first, last = file.header[random.choice(file.names("steps/"))]["data_offsets"]
    place = random.randrange(first, max(first + 1, last - 1))
    file.data[place : place + 2] = file.data[place : place + 2][::-1]


def flip_in(file: File, random: Random, part: str) -> None:
    first, last = file.header[random.choice(file.names(part))]["data_offsets"]
    file.data[random.randrange(first, last)] ^= 1 << random.randrange(8)


def digest(file: File, random: Random) -> None:
    """A digit of a SHA-256: of a tensor, of a parameter before or after, of the base, of the record."""
    about = file.record
    places: list[tuple[dict[str, Any], str]] = [
        (file.header["__metadata__"], "lce_sha256"),
        (about, "base_fingerprint"),
    ]
    places += [(about["digests"], name) for name in about["digests"]]
    for parameter in about["parameters"].values():
        places += [(parameter, key) for key in ("sha256", "sha256_after", "sha256_old") if parameter[key]]
    owner, key = random.choice(places)
    place = random.randrange(64)
    owner[key] = owner[key][:place] + random.choice("0123456789abcdef") + owner[key][place + 1 :]
    if owner is not file.header["__metadata__"]:
        file.record = about


def number(file: File, random: Random) -> None:
    """A number of the header: a shape, a place in the file, a count."""
    about = file.record
    tensor = file.header[random.choice(file.names())]
    parameter = about["parameters"][random.choice(list(about["parameters"]))]
    kind = random.choice(["shape", "offset", "count", "side", "version"])
    if kind == "shape":
        tensor["shape"] = [random.choice([*NUMBERS, tensor["shape"][0] + 1, tensor["shape"][0] - 1])]
    elif kind == "offset":
        tensor["data_offsets"][random.randrange(2)] += random.choice([-8, -4, -2, -1, 1, 2, 4, 8, 2**40])
    elif kind == "count":
        parameter["count"] = random.choice([*NUMBERS, parameter["count"] + 1])
    elif kind == "side":
        parameter["shape"] = random.choice(
            [parameter["shape"][::-1], [*parameter["shape"], 1], [random.choice(NUMBERS)]]
        )
    else:
        about["version"] = random.choice(NUMBERS)
    file.record = about


def name(file: File, random: Random) -> None:
    """A tensor or a parameter goes by another name, or two exchange theirs."""
    if random.random() < 0.5:
        one, other = random.choice(file.names()), random.choice(file.names())
        file.header[one], file.header[other] = file.header[other], file.header[one]
        return
    about = file.record
    owner = random.choice([file.header, about["parameters"], about["digests"], about, file.header["__metadata__"]])
    old = random.choice(list(owner))
    owner[random.choice([old + "x", old[:-1], old.upper(), "../" + old, ""])] = owner.pop(old)
    if "lce" in file.header.get("__metadata__", {}):
        file.record = about


def dtype(file: File, random: Random) -> None:
    """The type of a tensor or of a parameter."""
    about = file.record
    parameters = list(about["parameters"].values())
    random.choice([file.header[random.choice(file.names())], random.choice(parameters)])["dtype"] = random.choice(CODES)
    file.record = about


def metadata(file: File, random: Random) -> None:
    """Something of what the file says of itself is altered or left out."""
    about = file.record
    kind = random.choice(["provenance", "drop", "null", "seal", "older", "all", "odd"])
    owner = random.choice([about, *about["parameters"].values(), about["digests"], about["provenance"]])
    if kind == "provenance":
        about["provenance"][random.choice(list(about["provenance"]))] = random.choice([*NUMBERS, "pruning", "x" * 1000])
    elif kind == "drop":
        del owner[random.choice(list(owner))]
    elif kind == "null":
        owner[random.choice(list(owner))] = random.choice([None, [], {}, 0, ""])
    elif kind == "seal":
        del file.header["__metadata__"]["lce_sha256"]
    elif kind == "older":  # as older versions wrote it: loads, with a warning
        del about["digests"], file.header["__metadata__"]["lce_sha256"]
    elif kind == "all":
        del file.header["__metadata__"]
        return
    else:
        file.header["__metadata__"]["lce"] = random.choice(["", "{", "[]", "null", "[" * 100_000, '{"digests": []}'])
        return
    file.record = about


def length(content: bytes, random: Random) -> bytes:
    """The file is cut off, or something stands behind its end."""
    if random.random() < 0.5:
        return content[: random.randrange(len(content))]
    return content + random.randbytes(random.choice([1, 2, 8, 1000]))


def raw(content: bytes, random: Random) -> bytes:
    """One to four bytes anywhere are changed, left out or put in."""
    data = bytearray(content)
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(random.choice([1, 1, 2, 4])):
        place = min(
            random.choice([random.randrange(8), random.randrange(header), random.randrange(len(data))]), len(data) - 1
        )
        kind = random.choice(["flip", "set", "cut", "insert"])
        if kind == "flip":
            data[place] ^= 1 << random.randrange(8)
        elif kind == "set":
            data[place] = random.randrange(256)
        elif kind == "cut":
            del data[place : place + random.randrange(1, 17)]
        else:
            data[place:place] = random.randbytes(random.randrange(1, 17))
    return bytes(data)


APART: dict[str, Callable[[File, Random], None]] = {
    "value": value, "step": step, "digest": digest, "number": number, "name": name, "dtype": dtype,
    "metadata": metadata,
}  # fmt: skip
WHOLE: dict[str, Callable[[bytes, Random], bytes]] = {"length": length, "byte": raw}
KINDS = [*APART, *WHOLE]


def mutant(content: bytes, kind: str, random: Random) -> bytes:
    """A patch file like ``content`` with one change of the ``kind``."""
    if kind in WHOLE:
        return WHOLE[kind](content, random)
    file = File(content)
    APART[kind](file, random)
    return file.joined()
