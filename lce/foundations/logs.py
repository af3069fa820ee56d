"""What a run says while it works: all of it on standard error, and bars only where somebody watches."""

from __future__ import annotations

import logging
import os
import sys
import warnings

SWITCHES = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
"""What the libraries look at, when they are imported, before they draw bars; lce's own look at the terminal."""
CHATTY = ("lightning.pytorch", "lightning.fabric", "lightning_utilities.core")


def quieten() -> None:
    """Leave lce's own progress and the libraries' errors on the screen; called before the libraries are imported."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lce").setLevel(logging.INFO)
    for name in CHATTY:  # and the loggers below them, whose levels Lightning leaves alone when it is imported
        for below in ("", ".utilities.rank_zero", ".rank_zero"):
            logging.getLogger(name + below).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    if not sys.stderr.isatty():
        os.environ.update(dict.fromkeys(SWITCHES, "1"))


def hide_weight_bars() -> None:
    """Draw no bars while transformers reads or writes weights, on a terminal either; downloads keep theirs."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if sys.stderr.isatty():
        enable_progress_bars()  # the line before has switched off the hub's too
