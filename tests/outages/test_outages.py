"""Seconds instead of minutes; `python -m tests.outages` plays them at length."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.outages.run import ALL


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_is_lost_whatever_is_away() -> None:
    # A process of its own: the sender's SDK leaves sockets to the garbage collector when a connection fails.
    done = subprocess.run(
        [sys.executable, "-m", "tests.outages", "--away", "4", "--steady", "1.5", "--rate", "40"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=380,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count("outages: ") == len(ALL) + 1
