"""A signal ends the command, also where Python or a library ignores the exception that it raises."""

import subprocess
import sys

import pytest

DESTRUCTOR = """
class Object:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

with signals.stopping():
    Object()
    time.sleep(60)
"""
SWALLOWED = """
with signals.stopping():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    except BaseException:
        {}
        time.sleep(60)
"""
WAITED = "signals.PATIENCE = 0.5"
SECOND = "os.kill(os.getpid(), signal.SIGTERM)"
LINE = "lce: stopped by SIGTERM; the same command resumes from here\n"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param(DESTRUCTOR, LINE, id="in a destructor"),
        pytest.param(f"{WAITED}\n{SWALLOWED.format('pass')}", LINE, id="swallowed"),
        pytest.param(SWALLOWED.format(SECOND), "", id="a second one"),
    ],
)
def test_a_signal_ends_the_command(script: str, told: str) -> None:
    whole = f"import os, signal, time\nfrom lce.foundations import signals\n{script}"
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=15, check=False)
    assert done.returncode == 143
    assert done.stderr == told
