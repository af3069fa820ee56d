"""Edits per minute: a sweep of one pair against `lce edit` once per edit, both on all cores, from the shell.

Both measure WEAT, StereoSet, CrowS-Pairs and perplexity of the quickstart's pair, seed 0; the random controls of
`lce edit` are left out, and the unedited models' scores, which both keep from run to run, are there before the clock
starts. The sweep's time includes the start of Ray and of its workers. In each turn, two edits alone and a whole sweep.
Then, in one process: an edit with its evaluation against the evaluation of the unedited model.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from common import PEER_OWN_RATIO, ROOT, in_turns, machine, report, timed

EDITS = 40
ALONE = 2
METRICS = ["weat", "stereoset", "crows_pairs", "perplexity"]
ALPHAS = [round(0.1 * i, 1) for i in range(1, EDITS + 1)]


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lce.cli", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def write_configs(folder: Path) -> tuple[Path, Path]:
    """Configurations of the sweep and of single edits, over the quickstart's trained variants."""
    shutil.copytree(ROOT / "runs/quickstart/seed-0", folder / "run/seed-0", ignore=shutil.ignore_patterns("edits"))
    shared: dict[str, Any] = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8"))
    shared |= {"experiment": str(folder / "run"), "evaluation": {"metrics": METRICS}}
    study = {key: value for key, value in shared.items() if key != "random_baselines"} | {
        "seeds": [0],
        "variants": ["stereotypical", "anti-stereotypical"],
        "edits": [
            {"pairs": [["stereotypical", "anti-stereotypical"]], "localizations": ["mask"], "alpha": ALPHAS},
        ],
        "cells_per_task": EDITS // 4,
    }
    paths = folder / "study.yaml", folder / "edit.yaml"
    for path, content in zip(paths, (study, shared), strict=True):
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return paths


def in_process(config: Path) -> tuple[float, float]:
    """Seconds of an edit with its evaluation, and of an evaluation alone; the better of three."""
    from lce.study.cell_kinds import measure_edit
    from lce.study.cells import expand
    from lce.study.report.results import load_study
    from lce.study.worker_cache import WorkerCache

    place = WorkerCache(*load_study(config))
    cells = [cell for cell in expand(place.study) if cell.kind == "edit"]
    measure_edit(place, cells[0])
    model = place.model(cells[0])
    edits = min(timed(lambda cell=cell: measure_edit(place, cell))[0] for cell in cells[1:4])
    return edits, min(timed(lambda: place.evaluator.scores(model))[0] for _ in range(3))


def main() -> None:
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as name:
        study, single = write_configs(Path(name))
        edit = ["edit", "--config", str(single), "--random_baselines", "0"]
        run(*edit, "--alpha", "0.05")  # measures the unedited models
        none = yaml.safe_load(study.read_text(encoding="utf-8")) | {"edits": []}
        prepared = study.with_name("prepared.yaml")
        prepared.write_text(yaml.safe_dump(none), encoding="utf-8")
        run("sweep", "--config", str(prepared))  # notes the trained variants and measures the unedited models
        cells, edits = Path(name) / "run/cells", Path(name) / "run/seed-0/edits"

        def by_sweep() -> float:
            for path in cells.glob("edit-*"):
                path.unlink()
            return timed(lambda: run("sweep", "--config", str(study)))[0] / EDITS

        def alone() -> float:
            shutil.rmtree(edits)
            return timed(lambda: [run(*edit, "--alpha", str(alpha)) for alpha in ALPHAS[:ALONE]])[0] / ALONE

        turns = in_turns(by_sweep, alone)
        edited, evaluated = in_process(Path(name) / "run")
    headings = ["", "lce edit, once per edit", f"lce sweep, {EDITS} edits", PEER_OWN_RATIO[-1]]
    report("edits of one pair", headings, [["an edit takes", *turns.cells()]])
    print(f"edit and evaluation {edited:.2f} s, evaluation alone {evaluated:.2f} s: {edited / evaluated:.2f}")


if __name__ == "__main__":
    main()
