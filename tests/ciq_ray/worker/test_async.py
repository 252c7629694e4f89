from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from ciq_ray.errors import ConfigurationError
from ciq_ray.worker import AsyncWorker
from ciq_ray.worker.protocol import Task

LIMIT = 0.3


def test_coroutines_run_together_in_one_process(opened):
    async def objective(config):
        await asyncio.sleep(0.3)
        return config

    driver = opened(AsyncWorker, objective, num_workers=None)
    assert driver.worker.free == 8
    started = time.monotonic()
    reports = driver.evaluate(*range(16))
    assert time.monotonic() - started < 2
    assert [report.outcome.values for report in reports] == [(float(i),) for i in range(16)]
    assert len({report.pid for report in reports}) == 1
    assert all(0.3 <= report.outcome.run_s < 1 for report in reports)
    assert reports[0].worker == "async"


def test_no_more_than_num_workers_at_a_time(opened):
    running = []

    async def objective(config):
        running.append(1)
        most = len(running)
        await asyncio.sleep(0.02)
        running.pop()
        return most

    reports = opened(AsyncWorker, objective, num_workers=3).evaluate(*range(12))
    assert max(report.outcome.values[0] for report in reports) == 3


def test_only_asynchronous_objectives(tmp_path, opened):
    with pytest.raises(ConfigurationError, match="not asynchronous"):
        AsyncWorker(tmp_path).open(lambda config: 1.0)

    class Objective:
        async def __call__(self, config):
            return 2.0

    assert opened(AsyncWorker, Objective()).one().outcome.values == (2.0,)


def test_failures(opened):
    async def objective(kind):
        await asyncio.sleep(0)
        if kind == "raise":
            print("some output")
            raise ValueError("no")
        if kind == "exit":
            raise SystemExit(2)
        if kind == "subtask":
            await asyncio.create_task(objective("exit"))
        if kind == "timeout":
            raise TimeoutError("of its own")
        return {"text": "fast"}.get(kind, 1.0)

    kinds = ["raise", "exit", "subtask", "timeout", "text", "fine"]
    reports = opened(AsyncWorker, objective, task_timeout=20).evaluate(*kinds)
    assert [r.outcome.status for r in reports] == ["run_error"] * 4 + ["invalid_result", "ok"]
    assert reports[0].outcome.message.startswith("ValueError: no\n")
    assert "some output" in reports[0].outcome.message
    assert len({report.pid for report in reports}) == 1


def test_the_loop_keeps_the_limit(opened):
    async def objective(kind):
        try:
            await asyncio.sleep(60 if kind != "fine" else 0)
        except asyncio.CancelledError:
            if kind == "raise":
                raise
        return 1.0

    reports = opened(AsyncWorker, objective, task_timeout=LIMIT).evaluate("raise", "swallow", "fine")
    assert [r.outcome.status for r in reports] == ["run_timeout", "run_timeout", "ok"]
    assert len({report.pid for report in reports}) == 1
    assert "longer than 0.3 s" in reports[0].outcome.message


def test_a_blocked_loop_is_ended_and_others_are_sent_again(opened, tmp_path):
    async def objective(config):
        if config == "block":
            time.sleep(60)
        await asyncio.sleep(0.05)
        return os.getpid()

    driver = opened(AsyncWorker, objective, task_timeout=LIMIT, num_workers=4)
    driver.one("warm")
    driver.worker.submit(Task("block", "block"))
    driver.worker.poll(0.1)
    driver.worker.submit(Task("waits", "fine"))
    started = time.monotonic()
    reports = {}
    while len(reports) < 2:
        reports |= {report.task_id: report for report in driver.worker.poll(10)}
    assert time.monotonic() - started < 3
    assert reports["block"].outcome.status == "run_timeout"
    assert reports["block"].outcome.run_s < LIMIT + 1
    assert reports["waits"].outcome.ok
    assert reports["waits"].pid != reports["block"].pid


def test_only_the_task_that_kills_the_process_fails(opened):
    async def objective(kind):
        await asyncio.sleep(0.1)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    driver = opened(AsyncWorker, objective, num_workers=4, task_timeout=10)
    reports = driver.evaluate("fine", "kill", "fine", "fine", "kill", "fine")
    assert [r.outcome.status for r in reports] == ["ok", "run_error", "ok", "ok", "run_error", "ok"]
    assert "SIGKILL" in reports[1].outcome.message


def test_a_forked_copy_is_no_second_worker(opened):
    async def objective(config):
        if os.fork() == 0:
            return 5.0
        await asyncio.sleep(0.1)
        return 1.0

    driver = opened(AsyncWorker, objective, num_workers=2)
    assert [report.outcome.values for report in driver.evaluate(0, 1)] == [(1.0,)] * 2
    assert driver.worker.poll(0.2) == []


def test_cancel(opened):
    async def objective(seconds):
        await asyncio.sleep(seconds)
        return 1.0

    driver = opened(AsyncWorker, objective, num_workers=2)
    driver.worker.submit(Task("a", 60))
    driver.worker.submit(Task("b", 60))
    driver.worker.poll(0.2)
    assert sorted(driver.worker.cancel()) == ["a", "b"]
    assert driver.worker.free == 2
    assert driver.one(0).outcome.ok
