"""What ``/proc`` says of processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ciq_ray._processes import stat_of


def test_of_this_one() -> None:
    found = stat_of(os.getpid())
    assert found is not None
    assert found.alive
    assert found.parent == os.getppid()
    assert found.started > 0


def test_of_one_that_is_dead_and_of_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    found = stat_of(process.pid)
    assert found is not None
    assert (found.state, found.alive) == ("Z", False)
    process.communicate()
    assert stat_of(process.pid) is None


def test_of_one_with_a_misleading_name(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(str(shutil.which("sleep")), program)
    with subprocess.Popen([program, "60"]) as process:
        found = stat_of(process.pid)
        process.kill()
    assert found is not None
    assert (found.parent, found.alive) == (os.getpid(), True)
