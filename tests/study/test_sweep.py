"""The sweep on Ray: whatever is killed, it ends with the same results; what fails is named and stops nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray.cluster_utils import Cluster

from lce.cli import main
from lce.foundations.paths import FAILED, RUNNING
from lce.study.cell_kinds import MAKERS
from lce.study.cells import Cell
from lce.study.report.paper_sections import downstream
from lce.study.report.results import load_results, load_study
from lce.study.run_cell import MOST_DEATHS, make
from lce.study.settings import StudySettings
from lce.study.sweep import groups_of, status
from lce.study.worker_cache import WorkerCache


def results(run: Path) -> dict[str, Any]:
    """All results by name, without what differs from run to run."""
    found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (run / "cells").glob("*.json")}
    return {
        name: {key: r[key] for key in r if key not in ("seconds", "device", "existed")} for name, r in found.items()
    }


def smaller(study_config: Path, run: Path) -> Path:
    """The configuration of one seed of that study, with its first edits and the fine-tuned one, for a folder."""
    content = yaml.safe_load(study_config.read_text(encoding="utf-8"))
    content |= {"experiment": str(run), "seeds": [0], "edits": [content["edits"][0], content["edits"][-1]]}
    path = run.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_every_cell_has_its_result(swept: Path) -> None:
    found = status(*load_study(swept))
    assert not found.failed
    assert not found.left
    assert len(results(swept)) == len(found.done) == 8 + 8 + 2 + 1 + 2 * (2 * 7 + 10 + 4) + 2 * 2
    strategies = {result["cell"].get("strategy") for result in results(swept).values()}
    assert strategies == {None, "linear", "pruning", "mask-switch"}


def test_an_edit_of_the_sweep_is_that_of_lce_edit(swept: Path, study_config: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(study_config.read_text(encoding="utf-8"))
    for key in ("seeds", "variants", "edits", "downstream"):
        del content[key]
    config = tmp_path / "edit.yaml"
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    options = ["--localization", "value", "--alpha", "2", "--random_baselines", "0", "--output", str(tmp_path / "edit")]
    assert main(["edit", "--config", str(config), "--seed", "1", *options]) == 0
    alone = json.loads((tmp_path / "edit/result.json").read_text(encoding="utf-8"))
    asked = {"kind": "edit", "seed": 1, "target": "stereotypical", "localization": "value", "share": 0.1, "alpha": 2.0}
    [cell] = [
        result
        for result in results(swept).values()
        if result["cell"].items() >= (asked | {"control": "none"}).items() and "last_layers" not in result["cell"]
    ]
    for name, row in alone["scores"].items():
        assert cell["scores"][name]["value"] == pytest.approx(row["after"], rel=1e-5)
    assert cell["changed"] == alone["edited"]["count"]


def test_edited_models_were_fine_tuned_beside_the_unedited_ones(swept: Path) -> None:
    tuned = [result for result in results(swept).values() if result["cell"]["kind"] == "finetune"]
    assert [("variant" in r["cell"], "changed" in r) for r in tuned].count((True, False)) == 2
    assert all(0 <= result["scores"]["dev_accuracy"]["value"] <= 100 for result in tuned)
    assert "fine-tuning on each pair 0.1 times" in downstream(load_results(swept)).text


def test_a_finished_sweep_has_nothing_to_do(swept: Path, study_config: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (swept / "cells").iterdir()}
    assert main(["sweep", "--config", str(study_config), "--experiment", str(swept)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (swept / "cells").iterdir()} == before


def start(config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "lce", "sweep", "--config", str(config)])


def workers(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The workers of a sweep, once there are some."""
    until = time.monotonic() + 120
    while True:
        assert driver.poll() is None, "the sweep ended early"
        assert time.monotonic() < until, "no worker is at work"
        with suppress(psutil.NoSuchProcess):  # one that ended while it was looked at
            family = psutil.Process(driver.pid).children(recursive=True)
            if found := [process for process in family if "make_group" in " ".join(process.cmdline())]:
                return found
        time.sleep(0.1)


def wait_for(run: Path, cells: int, process: subprocess.Popen[bytes]) -> None:
    """Until ``cells`` have their results."""
    until = time.monotonic() + 300
    while len(list((run / "cells").glob("*.json"))) < cells:
        assert process.poll() is None, "the sweep ended early"
        assert time.monotonic() < until, "the sweep makes no progress"
        time.sleep(0.1)


def test_killed_drivers_and_workers_change_no_result(
    swept: Path, study_config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = swept.parent / "killed"
    config = smaller(study_config, run)

    driver = start(config)
    wait_for(run, 3, driver)
    monkeypatch.setattr("lce.foundations.locks.PATIENCE", 1.0)
    assert main(["sweep", "--config", str(config)]) == 2
    assert "another sweep is at work" in capsys.readouterr().err
    assert main(["sweep", "--config", str(config), "--status"]) == 0
    assert "running" in capsys.readouterr().out
    orphans = workers(driver)
    driver.kill()
    driver.wait()
    assert not psutil.wait_procs(orphans, timeout=60)[1], "workers end with the driver"
    found = status(*load_study(run))
    assert not found.running
    assert found.done
    assert found.left

    driver = start(config)
    wait_for(run, len(results(run)) + 1, driver)
    driver.terminate()
    assert driver.wait(timeout=60) == 143

    driver = start(config)
    wait_for(run, 12, driver)
    workers(driver)[0].kill()
    assert driver.wait(timeout=400) == 0
    assert not status(*load_study(run)).left
    assert results(run) == {name: results(swept)[name] for name in results(run)}


def test_a_failing_cell_is_named_and_stops_nothing(
    swept: Path, study_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(swept, run)
    content = yaml.safe_load(study_config.read_text(encoding="utf-8")) | {"experiment": str(run), "seeds": [0]}
    impossible = {"sparsities": [0.4], "localizations": ["value"], "share": [0.3], "count": [10**9], "alpha": [1.0]}
    config = tmp_path / "failing.yaml"
    config.write_text(yaml.safe_dump(content | {"edits": [*content["edits"], impossible]}), encoding="utf-8")
    assert main(["sweep", "--config", str(config)]) == 2
    captured = capsys.readouterr()
    assert "2 cells failed; the same command tries them again" in captured.err
    assert captured.out.count("count: expected a number of weights from 1 to") == 2
    assert len(results(run)) == len(results(swept)) + 2, "the cells after the failed ones were made"
    assert len(list((run / "cells").glob("*.failed"))) == 2


def test_a_cell_that_kills_its_workers_is_given_up(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marker of a worker that died tells the next one; at last the cell fails, and the others are made."""
    place = WorkerCache(replace(load_study(swept)[0], experiment=str(tmp_path)), load_study(swept)[1])
    cells = [Cell("overlap", sparsity=sparsity) for sparsity in (0.1, 0.2)]
    place.folder.mkdir()

    def deadly(place: WorkerCache, cell: Cell) -> dict[str, Any]:
        if cell.sparsity == 0.1:
            raise KeyboardInterrupt  # as little handled as a kill
        return {}

    monkeypatch.setitem(MAKERS, "overlap", deadly)
    for _ in range(MOST_DEATHS):
        with pytest.raises(KeyboardInterrupt):
            make(place, cells[0])
    for cell in cells:
        make(place, cell)
    assert "2 workers died while they made it" in place.path(cells[0]).with_suffix(FAILED).read_text(encoding="utf-8")
    assert place.path(cells[1]).exists()
    assert not list(place.folder.glob(f"*{RUNNING}"))
    monkeypatch.setitem(MAKERS, "overlap", lambda place, cell: {})
    make(place, cells[0])
    assert not place.path(cells[0]).exists(), "what failed is tried again by the next sweep, not by another worker"


def test_the_plan_lists_every_cell_and_its_cost(
    swept: Path, study_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--config", str(study_config), "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert plan.count("(done)") == len(status(*load_study(swept)).done)
    assert "cells that ran" in plan
    assert main(["sweep", "--config", str(study_config), "--dry-run", "--experiment", str(swept.parent / "new")]) == 0
    plan = capsys.readouterr().out
    assert "(done)" not in plan
    assert "arithmetic, roughly" in plan
    assert not (swept.parent / "new").exists()


def test_groups_share_their_models_and_wait_for_them() -> None:
    study = StudySettings(seeds=[0], cells_per_task=2)
    pair = {"target": "stereotypical", "reference": "neutral", "localization": "mask", "control": "none"}
    cells = [Cell("edit", 0, 0.3, strategy="pruning", draw=i, **pair) for i in range(3)]
    cells += [Cell("train", 0, 0.0, "neutral"), Cell("measure", 0, 0.0, "neutral"), Cell("overlap", sparsity=0.3)]
    groups = groups_of(study, cells)
    assert [[cell.kind for cell in group.cells] for group in groups] == [
        ["train", "measure"],
        ["edit", "edit"],
        ["edit"],
        ["overlap"],
    ]
    assert groups[0].makes == (0, "neutral")
    assert groups[1].needs == {(0, "stereotypical"), (0, "neutral")}
    assert len(groups[3].needs) == 3


def test_a_driver_starts_without_what_only_its_workers_need() -> None:
    code = "import sys, lce.study.status, lce.study.sweep; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--cpus_per_task", "4096"], "cpus_per_task, gpus_per_task: no node has 4096 and 0"),
        (["--trainer.accelerator", "gpu"], "gpus_per_task: 0, but trainer.accelerator is gpu"),
        (["--address", "nowhere"], "ray: no cluster answers at nowhere"),
    ],
)
def test_resources_that_are_not_there_are_named(
    option: list[str], message: str, study_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--config", str(study_config), "--experiment", str(tmp_path / "run"), *option]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_cluster_gives_the_same_results(swept: Path, study_config: Path, tmp_path: Path) -> None:
    """Two nodes of a core each, which Ray's own test tool makes on one machine."""
    shutil.copytree(swept / "seed-0", tmp_path / "run/seed-0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        where = ["--config", str(smaller(study_config, tmp_path / "run")), "--address", cluster.address]
        command = [sys.executable, "-m", "lce.cli", "sweep", *where]
        subprocess.run([*command, "--cells_per_task", "7"], check=True, timeout=400)
    finally:
        cluster.shutdown()
    assert not status(*load_study(tmp_path / "run")).left
    found = results(tmp_path / "run")
    assert found == {name: results(swept)[name] for name in found}
