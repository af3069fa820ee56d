"""The rank of this process among those that train one model together, whichever launcher started them."""

import os

KEYS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Variables that launchers set, in the order in which Lightning looks: torchrun, torchrun on one node, srun."""


def rank() -> int:
    """The rank, from 0; 0 for a process that trains alone."""
    return next((int(os.environ[key]) for key in KEYS if os.environ.get(key, "").isdigit()), 0)
