from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import which

import pytest

from lce.foundations.atomic_files import disk_error, new_folder, replaced_file, scratch_folder
from lce.foundations.errors import LceError
from lce.foundations.files import read_json, write_json

Place = Callable[[Path], AbstractContextManager[Path]]


def fail_in(place: AbstractContextManager[Path], file: str = "") -> None:
    with place as temporary:
        (temporary / file if file else temporary).write_text("half", encoding="utf-8")
        raise RuntimeError


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError):
        fail_in(replaced_file(path))
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_no_folder_and_an_existing_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_in(new_folder(tmp_path / "f"), "x")
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "f") as temporary:
        (temporary / "x").write_text("whole", encoding="utf-8")
    assert (tmp_path / "f/x").read_text(encoding="utf-8") == "whole"
    with pytest.raises(LceError, match="exists already"), new_folder(tmp_path / "f"):
        pass


WAITS_HALF_WAY = """
import sys, time
from pathlib import Path
from lce.foundations.atomic_files import replaced_file

with replaced_file(sys.argv[1]) as temporary:
    temporary.write_text("half", encoding="utf-8")
    print("half written", flush=True)
    sys.stdin.readline()
    temporary.write_text("whole, by the first", encoding="utf-8")
"""
WRITES = """
import sys
from lce.foundations.atomic_files import replaced_file

with replaced_file(sys.argv[1]) as temporary:
    temporary.write_text("whole, by the second", encoding="utf-8")
"""
UNSHARE = ["unshare", "--pid", "--fork", "--kill-child"]


def half_written(path: Path, *launcher: str) -> subprocess.Popen[str]:
    """A process that has written half of ``path``, and the rest when it is told to."""
    command = [*launcher, sys.executable, "-c", WAITS_HALF_WAY, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half written\n"
    return process


@pytest.mark.parametrize("name", ["model.json", "model[1]", "x" * 250])
def test_what_a_killed_process_left_behind_goes_and_what_a_live_one_writes_stays(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with half_written(path) as killed:
        killed.kill()
    assert len(list(tmp_path.iterdir())) == 2
    with half_written(path) as live:
        assert len(list(tmp_path.iterdir())) == 2, "the killed one's are gone, the live one's there"
        write_json(path, {})
        assert read_json(path) == {}
        live.communicate("go on")
    assert path.read_text(encoding="utf-8") == "whole, by the first"
    assert list(tmp_path.iterdir()) == [path]


def can_unshare() -> bool:
    return (
        subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
        if which("unshare")
        else False
    )


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make pid namespaces")
def test_two_containers_with_one_process_number_do_not_touch_each_other(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with half_written(path, *UNSHARE) as first:
        subprocess.run([*UNSHARE, sys.executable, "-c", WRITES, str(path)], check=True)
        assert path.read_text(encoding="utf-8") == "whole, by the second"
        first.communicate("go on")
        assert first.returncode == 0
    assert path.read_text(encoding="utf-8") == "whole, by the first"
    assert list(tmp_path.iterdir()) == [path]


def test_other_hosts_leavings_wait_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some cluster file systems keep each host's locks to itself, so that a lock that can be had says little."""
    path = tmp_path / "result.json"
    with half_written(path) as killed:
        killed.kill()
    monkeypatch.setattr("platform.node", lambda: "another")
    write_json(path, {})
    assert len(list(tmp_path.iterdir())) == 3
    for left in tmp_path.glob(".lce-*"):
        os.utime(left, (0, 0))
    write_json(path, {})
    assert list(tmp_path.iterdir()) == [path]


def test_one_target_whose_name_begins_like_another_ones(tmp_path: Path) -> None:
    with new_folder(tmp_path / "EDITED"), replaced_file(tmp_path / "EDITED.patch.safetensors") as file:
        file.touch()
        with new_folder(tmp_path / "EDITED.patch"):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"EDITED", "EDITED.patch", "EDITED.patch.safetensors"}


def test_files_have_the_mode_that_new_files_have(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "folder") as temporary:
            (temporary / "private").touch(0o600)
            (temporary / "program").touch(0o700)
        with replaced_file(tmp_path / "file") as temporary:
            temporary.touch(0o600)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "folder").iterdir()}
    assert modes == {"private": 0o640, "program": 0o740}
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_second_writer_of_one_folder_comes_too_late(tmp_path: Path) -> None:
    def write_twice() -> None:
        with new_folder(tmp_path / "f") as one:
            (one / "x").touch()
            with new_folder(tmp_path / "f") as other:
                (other / "y").touch()

    with pytest.raises(LceError, match="f: exists already"):
        write_twice()
    assert [path.name for path in tmp_path.rglob("*")] == ["f", "y"]


def test_errors_within_name_what_was_to_be_written(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "model") as temporary:
            write_json(temporary / "sub" / ("x" * 300), {})

    with pytest.raises(LceError, match=r"model/sub/x+: cannot be written") as error:
        fail()
    assert ".lce-" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [replaced_file, new_folder])
def test_a_link_is_followed(write: Place, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far/target")
    with write(tmp_path / "link") as temporary:
        assert temporary.parent == tmp_path / "far"
        if not temporary.is_dir():
            temporary.touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far/target").exists()


def test_failed_writes_are_found_through_what_libraries_make_of_them() -> None:
    def wrapped(cause: OSError, declared: bool) -> BaseException:
        try:
            try:
                raise cause
            except OSError as error:
                raise ValueError("closed file") from (error if declared else None)
        except ValueError as error:
            if not declared:
                error.__context__ = cause
            return error

    full, denied = OSError(errno.ENOSPC, "No space left"), PermissionError(errno.EACCES, "Permission denied")
    assert disk_error(wrapped(full, declared=True)) is full
    assert disk_error(wrapped(full, declared=False)) is full
    assert disk_error(wrapped(denied, declared=True)) is denied
    assert disk_error(wrapped(denied, declared=False)) is None, "an error while it was dealt with is another one"
    assert disk_error(KeyError("x")) is None


@pytest.mark.parametrize("write", [replaced_file, new_folder, scratch_folder])
def test_folders_made_for_what_failed_go_again(write: Place, tmp_path: Path) -> None:
    def fail() -> None:
        with write(tmp_path / "new/deep/out"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "message"), [(".", "names no file or folder"), ("x" * 300, "cannot be written")])
def test_names_that_cannot_be_written(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for write in (replaced_file, new_folder):
        with pytest.raises(LceError, match=message), write(Path(name)):
            pass
    assert not list(tmp_path.iterdir())
