from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from ciq_ray.worker.protocol import Report, StreamingWorker, Task


class Driver:
    """A worker that is open, and the loop an engine would run over it."""

    def __init__(self, worker: StreamingWorker) -> None:
        self.worker = worker

    def evaluate(self, *configs: Any, generation: int = 0, within: float = 30.0) -> list[Report]:
        """Evaluate configurations; reports in their order."""
        reports: dict[str, Report] = {}
        deadline = time.monotonic() + within
        sent = 0
        while len(reports) < len(configs):
            while sent < len(configs) and self.worker.free:
                self.worker.submit(Task(str(sent), configs[sent], generation))
                sent += 1
            for report in self.worker.poll(0.5):
                assert report.task_id not in reports, "a task was reported twice"
                reports[report.task_id] = report
            assert time.monotonic() < deadline, "no result in time"
        return [reports[str(i)] for i in range(len(configs))]

    def one(self, config: Any = None, generation: int = 0) -> Report:
        return self.evaluate(config, generation=generation)[0]


Opener = Callable[..., Driver]


@pytest.fixture
def opened(tmp_path, monkeypatch) -> Iterator[Opener]:
    """Opens workers; when the test is over closes them and looks for processes they left."""
    owner = secrets.token_hex(8)  # other tests may run on this machine
    monkeypatch.setenv("TEST_OWNER", owner)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    before = left_behind(owner)  # other tests' pools leave a tracker for the life of this process
    with contextlib.ExitStack() as stack:

        def open_worker(kind: type, function: Callable[[Any], Any], **options: Any) -> Driver:
            worker = kind(tmp_path)
            stack.callback(worker.close)
            worker.open(function, **{"num_workers": 1, "task_timeout": None, **options})
            return Driver(worker)

        yield open_worker
    assert [pid for pid in left_behind(owner) if pid not in before] == []


def left_behind(owner: str) -> list[int]:
    """Live descendants of this test process, and live processes that have inherited the owner's variable."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            ours = any(parent.pid == os.getpid() for parent in process.parents())
            if ours or process.environ().get("TEST_OWNER") == owner:
                found.append(process.pid)
    return found


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def wait_until() -> Callable[..., None]:
    def wait(condition: Callable[[], Any], within: float = 5.0) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    return wait


@pytest.fixture
def alive() -> Callable[[int], bool]:
    return is_alive
