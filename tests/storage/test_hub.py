"""Models of the hub, from a server on this machine that speaks its protocol."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from hub_server import Hub, point_at
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from lce.foundations.errors import LceError
from lce.models.loading import load_language_model
from lce.storage import hub as of_hub
from lce.storage.hub import ModelIdentity, identity, resolve, resolve_part

NAME = "somebody/tiny"


def forget() -> None:
    """As a new process: nothing has been asked yet."""
    of_hub._of_hub.cache_clear()
    close_session()


@pytest.fixture
def hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    server.models[NAME] = tmp_path / "published"
    shutil.copytree(base, server.models[NAME])
    point_at(server, monkeypatch, tmp_path / "cache")
    forget()
    yield server
    forget()
    server.hangs = False
    server.close()


def asked(hub: Hub) -> list[str]:
    """The requests about the model; the library asks for other things, too."""
    return [request for request in hub.requests if NAME in request]


def refused(name: str = NAME) -> str:
    with pytest.raises(LceError) as caught:
        load_language_model(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_a_model_is_downloaded_once_and_known_by_its_commit(hub: Hub, base: Path) -> None:
    model, _ = load_language_model(NAME)
    assert torch.equal(model.get_input_embeddings().weight, load_language_model(base)[0].get_input_embeddings().weight)
    found = identity(NAME)
    assert found == ModelIdentity(identity(base).fingerprint, hub.commit(NAME))
    assert identity(base).commit is None
    before = len(asked(hub))
    load_language_model(NAME)
    assert len(asked(hub)) == before, "one process asks once"
    forget()
    load_language_model(NAME)
    assert asked(hub)[before:] == [f"GET /api/models/{NAME}"], "what is in the cache is not asked for again"
    forget()
    (hub.models[NAME] / "config.json").write_text((base / "config.json").read_text(encoding="utf-8") + "\n")
    renewed = identity(NAME)
    assert renewed.commit == hub.commit(NAME) != found.commit
    assert renewed.fingerprint != found.fingerprint


def test_only_what_loading_reads_identifies_a_model(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "copy")
    (folder / "subnetwork").mkdir()
    for other in ("README.md", "README.txt", "pytorch_model.bin.index.json", "subnetwork/record.json", "x.png"):
        (folder / other).write_text("other", encoding="utf-8")
    assert identity(folder) == identity(base)
    for own in ("vocab.txt", "modeling.py", "added_tokens.json"):
        before = identity(folder)
        (folder / own).write_text("own", encoding="utf-8")
        assert identity(folder) != before


@pytest.mark.parametrize("fault", ["gone", "hangs", "breaks", "offline"])
def test_a_cached_model_works_without_the_hub(
    fault: str, hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_language_model(NAME)
    commit = hub.commit(NAME)
    forget()
    if fault == "gone":
        hub.close()
    elif fault == "hangs":
        hub.hangs = True
    elif fault == "breaks":
        hub.refusals[NAME] = (503, "")
    else:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before, started = len(asked(hub)), time.perf_counter()
    with caplog.at_level(logging.INFO, logger="lce"):
        load_language_model(NAME)
        load_language_model(NAME)
        assert identity(NAME).commit == commit
    assert time.perf_counter() - started < 10
    lines = [record.message for record in caplog.records if record.name == "lce.storage.hub"]
    assert len(lines) == 1
    assert f"works offline, from the cached copy of commit {commit}" in lines[0]
    assert len(asked(hub)) - before == (fault == "breaks"), "no second try"
    forget()
    started = time.perf_counter()
    assert "no whole copy of it in the cache" in refused("somebody/else") or fault == "breaks"
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((404, "RepoNotFound"), "nor, for this user, such a model on the hub"),
        ((403, "GatedRepo"), "is gated"),
        ((401, ""), "401"),
        ((418, ""), "418"),
    ],
)
def test_what_the_hub_refuses(refusal: tuple[int, str], message: str, hub: Hub) -> None:
    hub.refusals[NAME] = refusal
    assert message in refused()
    assert len(asked(hub)) == 1


def test_a_name_that_the_hub_cannot_know(hub: Hub) -> None:
    assert "no such folder" in refused("/nowhere/at/all")
    assert not any("nowhere" in request for request in hub.requests)


def test_a_model_without_safetensors(hub: Hub) -> None:
    (hub.models[NAME] / "model.safetensors").rename(hub.models[NAME] / "pytorch_model.bin")
    assert "does not open pytorch_model.bin: convert the model to safetensors first" in refused()
    assert not any("resolve" in request for request in hub.requests), "nothing of it is downloaded"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer_config.json"])
def test_a_download_that_breaks_off_is_not_used(file: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.truncated = file
    assert "cannot be downloaded" in refused()
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "no whole copy of it in the cache" in refused()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.truncated = ""
    load_language_model(NAME)


def test_a_revision(hub: Hub, tmp_path: Path) -> None:
    folder = resolve(NAME, revision="main", cache_dir=tmp_path / "another")
    assert folder.is_relative_to(tmp_path / "another")
    assert folder.name == hub.commit(NAME)


def test_from_the_environment(hub: Hub, tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    code = f"from lce.storage.hub import identity; print(identity({NAME!r}).commit)"
    run = [sys.executable, "-c", code]
    options = {"capture_output": True, "text": True, "check": True}
    assert subprocess.run(run, env=environment, **options).stdout.strip() == hub.commit(NAME)
    commit = hub.commit(NAME)
    hub.close()
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        assert subprocess.run(run, env=environment | more, **options).stdout.strip() == commit


def test_a_folder_is_looked_up_anew_from_another_working_directory(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name / "checkpoints/part").mkdir(parents=True)
        (tmp_path / name / "checkpoints/part/file").write_text(name, encoding="utf-8")
        monkeypatch.chdir(tmp_path / name)
        assert (resolve_part("checkpoints/part", ("file",)) / "file").read_text(encoding="utf-8") == name
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LceError, match="checkpoints/part"):
        resolve_part("checkpoints/part", ("other",))
