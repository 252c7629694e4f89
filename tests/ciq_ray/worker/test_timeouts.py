from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from ciq_ray.worker import IsoMultiProcessWorker, MultiProcessWorker
from ciq_ray.worker.protocol import Task

BOTH = pytest.mark.parametrize("kind", [MultiProcessWorker, IsoMultiProcessWorker])
LIMIT = 0.3


@BOTH
def test_a_hang_is_ended_and_the_search_goes_on(opened, kind):
    def objective(config):
        if config == "hang":
            print("about to hang", flush=True)
            time.sleep(60)
        return 1.0

    driver = opened(kind, objective, task_timeout=LIMIT)
    driver.one()
    started = time.monotonic()
    hung, fine = driver.evaluate("hang", None)
    assert time.monotonic() - started < 10
    assert hung.outcome.status == "run_timeout"
    assert "longer than 0.3 s" in hung.outcome.message
    assert "about to hang" in hung.outcome.message
    assert LIMIT <= hung.outcome.run_s < LIMIT + 1
    assert fine.outcome.ok
    assert fine.pid != hung.pid


@BOTH
def test_starting_a_process_is_not_part_of_the_limit(opened, kind, tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text(
        "import time; time.sleep(0.6)\ndef objective(config): return 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import slow_to_import

    reports = opened(kind, slow_to_import.objective, task_timeout=LIMIT).evaluate(None, None)
    assert [report.outcome.status for report in reports] == ["ok", "ok"]


def test_each_task_has_its_whole_limit(opened):
    def objective(seconds):
        time.sleep(seconds)
        return 1.0

    reports = opened(MultiProcessWorker, objective, task_timeout=LIMIT).evaluate(*[0.2] * 5)
    assert all(report.outcome.ok for report in reports)
    assert len({report.pid for report in reports}) == 1


def _stubborn(path):
    """Ignores SIGTERM, as do its descendants: a child, one in a session of its own, and a daemon."""

    def note():
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note()
    if os.fork() == 0:
        note()
        time.sleep(60)
        os._exit(0)
    if os.fork() == 0:
        os.setsid()
        note()
        time.sleep(60)
        os._exit(0)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note()
            time.sleep(60)
        os._exit(0)
    subprocess.Popen(["sh", "-c", f"trap '' TERM; echo $$ >> {path}; sleep 60; sleep 60"])
    time.sleep(60)


@BOTH
def test_everything_is_gone_within_a_second_of_the_limit(opened, kind, tmp_path, alive):
    path = tmp_path / "pids"
    worker = opened(kind, _stubborn, task_timeout=0.5).worker
    worker.submit(Task("a", str(path)))
    while not path.exists():
        worker.poll(0.005)
    ends = time.monotonic() + 0.5 + 1.0
    (report,) = worker.poll(10)
    assert time.monotonic() < ends
    pids = [int(line) for line in path.read_text().split()]
    assert len(pids) == 5
    assert [pid for pid in pids if alive(pid)] == []
    assert report.outcome.status == "run_timeout"


def test_limits_are_kept_while_the_driver_is_busy(opened, tmp_path, alive):
    path = tmp_path / "pids"
    worker = opened(MultiProcessWorker, _stubborn, task_timeout=0.5).worker
    worker.submit(Task("a", str(path)))
    while not path.exists():
        worker.poll(0.005)
    time.sleep(0.5 + 0.9)  # no call of the worker in that time
    pids = [int(line) for line in path.read_text().split()]
    assert len(pids) == 5
    assert [pid for pid in pids if alive(pid)] == []
    assert [report.outcome.status for report in worker.poll(5)] == ["run_timeout"]


def test_many_at_once(opened):
    def objective(config):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)

    driver = opened(MultiProcessWorker, objective, num_workers=8, task_timeout=LIMIT)
    for i in range(8):
        driver.worker.submit(Task(str(i), None))
    reports = []
    while len(reports) < 8:
        reports += driver.worker.poll(10)
    assert {report.outcome.status for report in reports} == {"run_timeout"}
    assert max(report.outcome.run_s for report in reports) < LIMIT + 1


def test_a_result_after_the_limit_is_a_timeout(opened):
    def objective(config):
        signal.signal(signal.SIGTERM, lambda *_: None)
        time.sleep(0.4)
        return 1.0

    driver = opened(MultiProcessWorker, objective, task_timeout=LIMIT)
    late, again = driver.evaluate(None, None)
    assert late.outcome.status == "run_timeout"
    assert again.outcome.status == "run_timeout"
