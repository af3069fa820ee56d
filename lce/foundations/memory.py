"""How the C library handles the memory of tensors that come and go."""

import ctypes
import os
from functools import cache

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of the parameters in glibc's malloc.h."""
LARGEST_KEPT, MOST_KEPT = 1 << 28, 1 << 30
"""Blocks up to this size are kept when they are freed, as long as no more than so much is free [bytes]."""


@cache
def keep_freed_memory() -> None:
    """Have freed blocks kept for the next tensor of this process, where they went back to the system before.

    Of a block that comes from the system, each page of 4 KB is set up when it is first written, which takes a tenth of
    the time of scoring a small model, and more on some virtual machines. Only glibc can be told so; nothing is changed
    where its own variables (MALLOC_...) or another allocator say what to do.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
    mallopt(TRIM_THRESHOLD, MOST_KEPT)
