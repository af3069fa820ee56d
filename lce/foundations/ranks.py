"""Which of the processes that train one model together this one is, whatever has started them."""

from __future__ import annotations

import os

KEYS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Where launchers say so, in the order in which Lightning looks: torchrun, torchrun on one node, srun."""


def rank() -> int:
    """Its number, from 0; 0 for a process that trains alone."""
    return next((int(os.environ[key]) for key in KEYS if os.environ.get(key, "").isdigit()), 0)
