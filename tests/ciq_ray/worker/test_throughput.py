from __future__ import annotations

import multiprocessing
import time

import pytest

from ciq_ray.worker import MultiProcessWorker
from ciq_ray.worker.protocol import Task

EVALUATIONS = 600


def one_millisecond(config):
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
    return config["x"]


def _ours(worker, count):
    started = time.perf_counter()
    sent = done = 0
    while done < count:
        while sent < count and worker.free:
            worker.submit(Task(str(sent), {"x": sent}))
            sent += 1
        done += len(worker.poll(1))
    return count / (time.perf_counter() - started)


@pytest.mark.slow
def test_at_least_seven_tenths_of_a_multiprocessing_pool(opened):
    worker = opened(MultiProcessWorker, one_millisecond, num_workers=2, task_timeout=30).worker
    with multiprocessing.get_context("fork").Pool(2) as pool:
        configs = [{"x": i} for i in range(EVALUATIONS)]
        ours, theirs = [], []
        for _ in range(6):  # side by side; the best of each is what other programs disturbed least
            started = time.perf_counter()
            list(pool.imap_unordered(one_millisecond, configs))
            theirs.append(EVALUATIONS / (time.perf_counter() - started))
            ours.append(_ours(worker, EVALUATIONS))
    assert max(ours) >= 0.7 * max(theirs), (ours, theirs)
