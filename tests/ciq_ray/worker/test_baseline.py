from __future__ import annotations

import asyncio
import os
import time

import pytest

from ciq_ray.errors import BaselineError
from ciq_ray.worker import AsyncWorker, IsoMultiProcessWorker, MultiProcessWorker
from ciq_ray.worker.protocol import Task

PROCESSES = pytest.mark.parametrize("kind", [MultiProcessWorker, IsoMultiProcessWorker])


@pytest.fixture
def measured(tmp_path):
    """A file with a byte for each time the baseline has been measured."""
    path = tmp_path / "measured"
    path.touch()
    return path


def measure(path):
    """Counts one measurement more: how many there are with it, in whatever processes they run."""
    with path.open("ab", buffering=0) as file:
        file.write(b"x")
        return file.tell()  # Where this write ended: the file's size may have another's in it.


@pytest.fixture
def counted(measured):
    """An objective whose baseline gives how often it has been measured so far."""
    return lambda config: config["x"] if config else measure(measured)


@PROCESSES
def test_measured_first_and_again_each_generation(opened, kind, counted):
    driver = opened(kind, counted, baseline_config={})
    first = driver.evaluate({"x": 5}, {"x": 6}, generation=0)
    second = driver.evaluate({"x": 7}, generation=1)
    late = driver.evaluate({"x": 8}, generation=0)
    assert [r.outcome.values for r in [*first, *second, *late]] == [(5.0,), (6.0,), (7.0,), (8.0,)]
    assert [r.baseline for r in [*first, *second, *late]] == [(1.0,), (1.0,), (2.0,), (2.0,)]


@PROCESSES
def test_measured_in_each_slot(opened, kind, counted, measured):
    def objective(config):
        while config and measured.stat().st_size < 2:  # Keeps its slot until the other one is at work, too.
            time.sleep(0.01)
        return counted(config)

    driver = opened(kind, objective, num_workers=2, baseline_config={}, task_timeout=30)
    reports = driver.evaluate({"x": 1}, {"x": 1})
    assert [report.outcome.status for report in reports] == ["ok", "ok"]
    assert {report.baseline for report in reports} == {(1.0,), (2.0,)}


def test_a_new_process_measures_its_own(opened, counted):
    def objective(config):
        if config and config["x"] == 0:
            os._exit(1)
        return counted(config)

    reports = opened(MultiProcessWorker, objective, baseline_config={}).evaluate({"x": 0}, {"x": 1})
    assert reports[0].outcome.status == "run_error"
    assert [report.baseline for report in reports] == [(1.0,), (2.0,)]


def test_the_loop_measures_once_for_all(opened, counted):
    async def objective(config):
        await asyncio.sleep(0.02)
        return counted(config)

    driver = opened(AsyncWorker, objective, num_workers=4, baseline_config={})
    first = driver.evaluate(*[{"x": 1}] * 8, generation=0)
    second = driver.evaluate(*[{"x": 1}] * 8, generation=1)
    assert [report.baseline for report in first] == [(1.0,)] * 8
    assert [report.baseline for report in second] == [(2.0,)] * 8


@PROCESSES
@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        ("raise", "run_error.*ValueError: no default"),
        ("hang", "run_timeout.*longer than 0.3 s"),
        ("die", "run_error.*exited with code 3"),
        ("zero", "cannot be divided by 0"),
        ("nan", "invalid_result.*nan"),
    ],
)
def test_a_baseline_that_fails_ends_the_search(opened, kind, baseline, words):
    def objective(config):
        if config == "raise":
            raise ValueError("no default")
        if config == "hang":
            time.sleep(60)
        if config == "die":
            os._exit(3)
        return {"zero": 0, "nan": float("nan")}.get(config, 1.0)

    worker = opened(kind, objective, baseline_config=baseline, task_timeout=0.3).worker
    worker.submit(Task("a", "fine"))
    with pytest.raises(BaselineError, match=f"(?s){words}"):
        worker.poll(10)
    with pytest.raises(BaselineError):
        worker.poll(0)


@pytest.mark.parametrize("baseline", ["raise", "die", "block"])
def test_a_baseline_that_fails_in_a_loop(opened, baseline):
    async def objective(config):
        await asyncio.sleep(0)
        if config == "raise":
            raise ValueError("no default")
        if config == "die":
            os._exit(3)
        if config == "block":
            time.sleep(60)
        return 1.0

    worker = opened(AsyncWorker, objective, num_workers=2, baseline_config=baseline, task_timeout=0.3).worker
    worker.submit(Task("a", "fine"))
    worker.submit(Task("b", "fine"))
    with pytest.raises(BaselineError, match="the baseline configuration failed"):
        worker.poll(10)
