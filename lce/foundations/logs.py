"""What a run says while it works: all of it on standard error, and progress bars on a terminal only."""

import logging
import os
import sys
import warnings

SWITCHES = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
"""Variables that turn off the libraries' bars, read when they are imported; lce's own bars look at the terminal."""
CHATTY = ("lightning.pytorch", "lightning.fabric", "lightning_utilities.core")


def quieten() -> None:
    """Show lce's own progress and the libraries' errors only; to be called before the libraries are imported."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lce").setLevel(logging.INFO)
    for name in CHATTY:  # and the loggers below them, whose levels Lightning leaves alone when it is imported
        for below in ("", ".utilities.rank_zero", ".rank_zero"):
            logging.getLogger(name + below).setLevel(logging.WARNING)
    logging.getLogger("transformers.modeling_utils").addFilter(_is_error)  # a level has it say more, in 5.23
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    warnings.filterwarnings("ignore", module="lightning")
    if not sys.stderr.isatty():
        os.environ.update(dict.fromkeys(SWITCHES, "1"))


def _is_error(record: logging.LogRecord) -> bool:
    """Leaves out transformers' report of weights that a model does not need; lce itself checks what is missing."""
    return record.levelno >= logging.ERROR


def hide_weight_bars() -> None:
    """Draw no bars while transformers reads or writes weights, not even on a terminal; downloads keep theirs."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if sys.stderr.isatty():
        enable_progress_bars()  # the line before turned off the hub's too
