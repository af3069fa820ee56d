"""What a run says while it works."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Leave lce's own progress and the libraries' errors on the screen; called once the libraries are imported."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lce").setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
