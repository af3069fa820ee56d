"""A signal that comes where Python ignores exceptions ends the command all the same."""

import subprocess
import sys

SCRIPT = """
import os, signal, time
from lce.foundations.signals import stopping

class Object:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

with stopping():
    Object()
    time.sleep(60)
"""


def test_a_signal_in_a_destructor_ends_the_command() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=15, check=False)
    assert done.returncode == 143
    assert done.stderr == "lce: stopped by SIGTERM; the same command resumes from here\n"
