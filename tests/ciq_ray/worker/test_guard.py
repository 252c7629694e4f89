from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from ciq_ray.worker.guard import kill_families

DRIVER = """
import os, subprocess, sys, time
from pathlib import Path
from ciq_ray.worker import {kind}
from ciq_ray.worker.protocol import Task

{objective}

worker = {kind}(".")
worker.open(objective, num_workers=2, task_timeout=None, log_dir=Path("logs"))
worker.submit(Task("a", sys.argv[1]))
if {fork} and os.fork() == 0:
    time.sleep(4)
    os._exit(0)
while True:
    worker.poll(1)
"""

STUBBORN = """
def objective(path):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "60"])
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    with open(path + ".part", "w") as file:
        file.write(f"{os.getpid()} {child.pid} {other.pid}")
    os.rename(path + ".part", path)
    time.sleep(60)
"""


def _start(tmp_path, kind, fork=False, objective=STUBBORN):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(kind=kind, objective=objective, fork=fork))
    path = tmp_path / "pids"
    with (tmp_path / "errors").open("w") as errors:
        driver = subprocess.Popen([sys.executable, str(script), str(path)], cwd=tmp_path, stderr=errors)
    deadline = time.monotonic() + 20
    while not path.exists():
        assert driver.poll() is None, (tmp_path / "errors").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return driver, [int(pid) for pid in path.read_text().split()]


@pytest.mark.parametrize(
    ("kind", "fork"),
    [("MultiProcessWorker", False), ("MultiProcessWorker", True), ("IsoMultiProcessWorker", False)],
)
def test_a_driver_that_is_killed_leaves_no_process(tmp_path, wait_until, alive, kind, fork):
    driver, pids = _start(tmp_path, kind, fork)
    children = [child.pid for child in psutil.Process(driver.pid).children(recursive=True)]
    copies = [
        pid
        for pid in children
        if fork and psutil.Process(pid).cmdline()[1:2] == [str(tmp_path / "driver.py")]
    ]
    expected = set(children) | set(pids)
    assert len(expected) >= 5
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(alive(pid) for pid in expected - set(copies)), within=2)
    assert len(copies) == fork
    for pid in copies:
        os.kill(pid, signal.SIGKILL)


def test_an_interrupt_is_the_drivers_alone(tmp_path, wait_until, alive):
    driver, pids = _start(tmp_path, "MultiProcessWorker")
    os.kill(driver.pid, signal.SIGINT)
    assert driver.wait(10) != 0
    assert "KeyboardInterrupt" in (tmp_path / "errors").read_text()
    wait_until(lambda: not any(alive(pid) for pid in pids), within=2)


def test_workers_have_a_session_of_their_own(tmp_path):
    driver, pids = _start(tmp_path, "MultiProcessWorker")
    try:
        assert os.getsid(pids[0]) == pids[0]
        assert os.getpgid(pids[0]) == pids[0]
    finally:
        driver.kill()
        driver.wait()


def test_a_search_inside_an_objective_is_part_of_the_family(tmp_path, wait_until, alive):
    inner = """
def inner(path):
    with open(path + ".part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".part", path)
    time.sleep(60)

def objective(path):
    nested = MultiProcessWorker(".")
    nested.open(inner, num_workers=1, log_dir=Path("nested"))
    nested.submit(Task("a", path))
    nested.poll(60)
"""
    driver, pids = _start(tmp_path, "MultiProcessWorker", objective=inner)
    everything = {child.pid for child in psutil.Process(driver.pid).children(recursive=True)} | set(pids)
    assert len(everything) >= 5  # two guards, two workers, a worker of a worker
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(alive(pid) for pid in everything), within=3)


def test_only_the_marked_are_killed(tmp_path, alive, wait_until):
    code = textwrap.dedent(
        """
        import os, sys, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                with open(sys.argv[1], "w") as file:
                    file.write(str(os.getpid()))
                time.sleep(60)
            os._exit(0)
        os.wait()
        """
    )

    def daemon(value):
        environment = {**os.environ, "CIQ_WORKER_test": value}
        path = tmp_path / value
        subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True)
        wait_until(lambda: path.exists() and path.read_text())
        return int(path.read_text())

    first, second = daemon("1"), daemon("11")
    kill_families([], ["CIQ_WORKER_test=1"])
    wait_until(lambda: not alive(first), within=1)
    assert alive(second)
    kill_families([], ["CIQ_WORKER_test="])
    wait_until(lambda: not alive(second), within=1)
