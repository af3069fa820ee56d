from __future__ import annotations

from pathlib import Path

import pytest

from lce.foundations.errors import LceError
from lce.foundations.files import claim, made_with, save_config, write_json


def test_a_folder_is_claimed_by_its_settings(tmp_path: Path) -> None:
    claim(tmp_path, {"a": 0}, ("*.json",), "data")
    claim(tmp_path, {"a": 1, "b": {"c": [2]}}, ("*.json",), "data")
    write_json(tmp_path / "result.json", {})
    claim(tmp_path, {"a": 1, "b": {"c": [2]}}, ("*.json",), "data")
    with pytest.raises(LceError, match="a was 1, now 2"):
        claim(tmp_path, {"a": 2, "b": {"c": [2]}}, ("*.json",), "data")


def test_a_folder_that_is_claimed_is_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1\n", encoding="utf-8")
    with pytest.raises(LceError, match=r"config.yaml: exists and is not a settings file of data made by lce"):
        claim(tmp_path, {"a": 1}, (), "data")
    (tmp_path / "config.yaml").unlink()
    claim(tmp_path, {"a": 1}, ("*.json",), "data")
    save_config(tmp_path / "config.yaml", {"a": 1}, "data")
    write_json(tmp_path / "result.json", {})
    claim(tmp_path, {"a": 1, "b": 2}, ("*.json",), "data", recorded_later=("b",))
    assert made_with(tmp_path) == {"a": 1, "b": 2}
    with pytest.raises(LceError, match="b was 2, now 3"):
        claim(tmp_path, {"a": 1, "b": 3}, ("*.json",), "data", recorded_later=("b",))
    for odd in ("[1]", "a: [", "\0", "word"):
        (tmp_path / "made-with.yaml").write_text(odd, encoding="utf-8")
        with pytest.raises(LceError, match=r"made-with.yaml: (cannot be read|does not say)") as error:
            made_with(tmp_path)
        assert "\n" not in str(error.value)
