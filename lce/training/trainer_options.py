"""Options of Lightning's Trainer: which of them results depend on, and whether this machine has what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lce.config import Kind, OptimisationSettings
from lce.foundations.errors import LceError


def identity_of(settings: OptimisationSettings, kind: Kind) -> dict[str, Any]:
    """The settings on which results depend: all but how and when batches and checkpoints are made.

    Of how terms are preferred, only what concerns a model of this ``kind``.
    """
    other = {"masked": ("term_weight",), "causal": ("term_probability", "mask_probability")}
    free = ("workers", "validate_every", "checkpoint_every", *other[kind])
    return {key: value for key, value in asdict(settings).items() if key not in free}


def numerics(trainer_options: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's options on which results depend: all but where and how it runs."""
    free = ("accelerator", "strategy", "devices", "num_nodes", "log_every_n_steps")
    return {key: str(value) for key, value in trainer_options.items() if key not in free}


def on_one_device(trainer_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a Trainer that evaluates, which one device does even where several train."""
    devices = trainer_options.get("devices")
    one = devices if isinstance(devices, list) and len(devices) == 1 else 1
    return dict(trainer_options) | {"devices": one, "num_nodes": 1, "strategy": "auto"}


def check_machine(trainer_options: Mapping[str, Any]) -> None:
    """Raises LceError where Lightning cannot do on this machine what the options ask for: there is no GPU, say."""
    from lightning import Trainer
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    try:
        Trainer(**trainer_options, **quiet, logger=False)
    except (MisconfigurationException, ValueError, TypeError, ImportError, RuntimeError) as error:
        asked = ", ".join(f"{name} {trainer_options.get(name)}" for name in ("accelerator", "strategy", "devices"))
        precision = trainer_options.get("precision")
        asked += f", precision {precision}" if precision else ""
        raise LceError(f"trainer: {asked}: is not available on this machine ({error})") from error
