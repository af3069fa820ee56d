"""Ray, connected to a cluster or started on this machine."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lce.foundations.errors import LceError
from lce.foundations.signals import handlers_kept
from lce.study.settings import StudySettings


@contextmanager
def connected(study: StudySettings, trainer_options: dict[str, Any]) -> Iterator[Any]:
    """Ray, connected to the cluster of ``study`` or to one started on this machine for the while."""
    accelerator = trainer_options.get("accelerator")
    if accelerator in ("gpu", "cuda") and not study.gpus_per_task:
        raise LceError(
            f"gpus_per_task: 0, but trainer.accelerator is {accelerator}; give each task a GPU or a share of one"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise LceError("lce sweep: needs ray, which `pip install 'lce[study]'` brings") from error
    try:
        with handlers_kept():
            ray.init(
                address=study.address or "local", include_dashboard=False if study.address is None else None,
                log_to_driver=False, logging_level=logging.ERROR,
            )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:  # Ray ends the process if a port is dead
        where = f"no cluster answers at {study.address}" if study.address else "it cannot be started here"
        raise LceError(f"ray: {where} ({' '.join(str(error).split())})") from error
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        wanted = {"CPU": study.cpus_per_task, "GPU": study.gpus_per_task}
        if not any(all(node.get(name, 0) >= number for name, number in wanted.items()) for node in nodes):
            has = "; ".join(", ".join(f"{name} {node.get(name, 0):g}" for name in wanted) for node in nodes)
            raise LceError(
                f"cpus_per_task, gpus_per_task: no node has {wanted['CPU']:g} and {wanted['GPU']:g}; they have {has}"
            )
        yield ray
    finally:
        ray.shutdown()
