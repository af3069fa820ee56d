from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lce.errors import LceError
from lce.files import claim, new_folder, read_json, replaced_file, scratch_folder, write_json

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


def test_a_folder_is_claimed_by_its_settings(tmp_path: Path) -> None:
    claim(tmp_path, {"a": 0}, results=("*.json",))
    claim(tmp_path, {"a": 1, "b": {"c": [2]}}, results=("*.json",))
    write_json(tmp_path / "result.json", {})
    claim(tmp_path, {"a": 1, "b": {"c": [2]}}, results=("*.json",))
    with pytest.raises(LceError, match="a was 1, now 2"):
        claim(tmp_path, {"a": 2, "b": {"c": [2]}}, results=("*.json",))


def test_own_leavings_and_odd_names_are_tidied_up(tmp_path: Path) -> None:
    """In a container every run may have the same process number."""
    stale = tmp_path / f".model[1].{os.getpid()}.tmp"
    stale.mkdir()
    (stale / "half").touch()
    with new_folder(tmp_path / "model[1]") as temporary:
        assert not list(temporary.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["model[1]"]


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
