from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from lce.errors import LceError
from lce.files import claim, new_folder, read_json, replaced_file, write_json


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
