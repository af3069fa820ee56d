"""What lce ships is found from every folder; what lies in the working directory goes first."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT

from lce.foundations import paths
from lce.foundations.paths import shipped

SHIPPED = ("configs/bias/gender.yaml", "checkpoints/lce-bert-mini")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_repository_has_what_the_working_directory_has_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped(name) == ROOT / name
    own = tmp_path / name
    own.mkdir(parents=True)
    assert shipped(name) == Path(name)


@pytest.mark.parametrize("scheme", ["beside the package", "prefix", "user"])
def test_an_installation_has_it_in_its_data_folder(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / name for name in ("beside the package", "prefix", "user")}
    kept = folders[scheme] / "share/lce/configs/study.yaml"
    kept.parent.mkdir(parents=True)
    kept.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "__file__", str(folders["beside the package"] / "lce/foundations/paths.py"))
    user = sysconfig.get_preferred_scheme("user")
    monkeypatch.setattr(sysconfig, "get_path", lambda _, which="": str(folders["user" if which == user else "prefix"]))
    assert shipped("configs/study.yaml") == kept


@pytest.mark.parametrize("name", ["configs/none.yaml", "data/quickstart", "lce/cli.py", "setup.cfg", "", "/configs"])
def test_all_else_is_where_its_name_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped(name) == Path(name)
