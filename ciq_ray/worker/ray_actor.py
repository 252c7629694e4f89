"""What runs on a node: an actor that keeps one worker process busy, and that outlives it."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from ciq_ray.errors import BaselineError, CiqError, WorkerError
from ciq_ray.kernels.jobs import DEVICE_LOST
from ciq_ray.worker.protocol import NO_BASELINE, Report, Task
from ciq_ray.worker.ray_payload import Packed
from ciq_ray.worker.slots import NativePool

__all__ = ["EvaluationActor", "Reply", "Setup"]

FLUSH_S: Final = 0.02
"""Seconds that a result waits for others to travel with."""
_POLL_S: Final = 0.05
_IDLE_S: Final = 1.0
_CANCEL_LIMIT_S: Final = 2.0
_END_LIMIT_S: Final = 3.0
"""Seconds to let go of what is held, such as the clocks of a device, after a SIGTERM."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What an actor needs to know, the same for all actors of a search.

    Attributes:
        function: The objective, pickled.
        num_objectives: How many numbers it returns.
        task_timeout: Seconds one evaluation may take, or ``None``.
        baseline: The configuration of the baseline, pickled; ``None``: none is measured.
        log_dir: The driver's folder for what objectives print; used where it exists.
        folder: The driver's working folder; used where it exists, ``None``: Ray's own is.
        argv: The driver's arguments.
        sees_gpus: Whether evaluations have been given any.
        hold: A function without arguments, pickled: a context manager that the actor is in while it
            evaluates, such as the hold on a device's lock and clocks; ``None``: there is none.
    """

    function: bytes
    num_objectives: int
    task_timeout: float | None
    baseline: bytes | None
    log_dir: str | None
    folder: str | None
    argv: list[str]
    sees_gpus: bool
    hold: bytes | None = None


class Reply(NamedTuple):
    """What an actor answers.

    Attributes:
        reports: What is done, with the seconds each took here.
        error: Why nothing more will be, if that is so, and whether it is the baseline's fault.
    """

    reports: list[tuple[Report, float]]
    error: tuple[bool, str] | None = None


class _SlotPool(NativePool):
    """One slot; configurations arrive pickled."""

    def submit(self, task: Task) -> None:
        self._check()
        self._accept(task, task.config)


@dataclass(slots=True)
class _Desk:
    """What the threads of an actor share."""

    waiting: deque[Task] = field(default_factory=deque)
    running: bool = False
    done: list[tuple[Report, float]] = field(default_factory=list)
    flush_at: float = 0.0
    cancelled: bool = False
    closing: bool = False
    error: tuple[bool, str] | None = None


class EvaluationActor:
    """One place of a search on a node: a queue of tasks, and a worker process that takes one at a time.

    The objective runs in a child, with all that makes a local worker robust: `task_timeout` kills the
    child's process group, a segmentation fault is the child's, and a guard process ends the child when
    the actor itself is killed. The actor never imports what the objective needs.

    A thread of its own drives the child; the methods are called by Ray in other threads.

    Args:
        name: Of this actor, in logs and results.
        setup: What to evaluate.
    """

    def __init__(self, name: str, setup: Setup) -> None:
        self._name = name
        self._setup = setup
        self._desk = _Desk()
        self._changed = threading.Condition()
        sys.argv[:] = setup.argv
        if setup.folder is not None and os.path.isdir(setup.folder):
            os.chdir(setup.folder)
        if not setup.sees_gpus:
            # Ray leaves the variable alone for an actor without GPUs unless it is told otherwise
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        else:
            # Ray counts devices as NVML does, by their place on the bus, and not by speed as CUDA would
            os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler waits for the calls that are out, and those wait for the child
            signal.signal(signal.SIGTERM, self._terminated)
        self._thread = threading.Thread(target=self._work, name="ciq-actor", daemon=True)
        self._thread.start()

    # --- what the driver calls ---

    def hello(self) -> dict[str, str]:
        """Where this is: ids of the node, of the GPUs if there are any, and of the actor."""
        import ray

        context = ray.get_runtime_context()
        place = {"node": context.get_node_id(), "actor": context.get_actor_id()}
        if self._setup.sees_gpus:
            place["gpu"] = ",".join(_gpu_uuids(os.environ.get("CUDA_VISIBLE_DEVICES", "")))
        return place

    def exchange(self, tasks: list[Task]) -> Reply:
        """Take tasks, and wait until there are results worth an answer.

        Results travel together if they come within `FLUSH_S` of each other; the last one there is to
        wait for never waits.
        """
        with self._changed:
            self._desk.waiting.extend(tasks)
            self._changed.notify_all()
            while not self._must_answer():
                wait_s = self._desk.flush_at - time.monotonic() if self._desk.done else None
                self._changed.wait(wait_s)
            done, self._desk.done = self._desk.done, []
            return Reply(done, self._desk.error)

    def put(self, tasks: list[Task]) -> None:
        """Take more tasks while an `exchange` waits."""
        with self._changed:
            self._desk.waiting.extend(tasks)
            self._changed.notify_all()

    def take_back(self, ids: Collection[str]) -> list[str]:
        """Give up those of these tasks that have not begun; which these are."""
        with self._changed:
            given = [task.id for task in self._desk.waiting if task.id in ids]
            self._desk.waiting = deque(task for task in self._desk.waiting if task.id not in ids)
            self._changed.notify_all()
            return given

    def cancel(self) -> None:
        """Stop everything now; returns once the child is dead."""
        with self._changed:
            self._desk.waiting.clear()
            self._desk.cancelled = self._desk.running
            self._changed.wait_for(lambda: not self._desk.running, _CANCEL_LIMIT_S)
            self._desk.done.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """End the child, and take no more tasks."""
        with self._changed:
            self._desk.waiting.clear()
            self._desk.closing = True
            self._changed.notify_all()
        self._thread.join(_CANCEL_LIMIT_S)

    # --- the thread that drives the child ---

    def _must_answer(self) -> bool:
        desk = self._desk
        if desk.error is not None or desk.closing or not (desk.waiting or desk.running):
            return True
        return bool(desk.done) and time.monotonic() >= desk.flush_at

    def _work(self) -> None:
        try:
            with self._hold(), contextlib.closing(self._pool()) as pool:
                while (task := self._next(pool)) is not None:
                    started = time.monotonic()
                    pool.submit(task)
                    while not (reports := pool.poll(_POLL_S)):
                        if self._desk.cancelled or self._desk.closing:
                            pool.cancel()
                            break
                    _refuse_lost_device(reports)
                    self._settle(reports, time.monotonic() - started)
        except Exception as error:  # whatever it is, the driver has to hear of it
            text = str(error) if isinstance(error, CiqError) else f"{type(error).__name__}: {error}"
            with self._changed:
                self._desk.error = isinstance(error, BaselineError), f"{self._name}: {text}"
                self._desk.running = False
                self._changed.notify_all()

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        if self._setup.hold is not None:
            # without the lock, which the interrupted code may have: the thread looks at it by itself
            self._desk.closing = True
            self._thread.join(_END_LIMIT_S)
        os._exit(128 + number)

    def _hold(self) -> contextlib.AbstractContextManager[Any]:
        hold = self._setup.hold
        return contextlib.nullcontext() if hold is None else pickle.loads(hold)()

    def _pool(self) -> _SlotPool:
        setup = self._setup
        logs = Path(setup.log_dir) / self._name if setup.log_dir and os.path.isdir(setup.log_dir) else None
        return _SlotPool(
            Packed(setup.function),
            num_workers=1,
            task_timeout=setup.task_timeout,
            num_objectives=setup.num_objectives,
            baseline_config=NO_BASELINE if setup.baseline is None else Packed(setup.baseline),
            log_dir=logs,
        )

    def _next(self, pool: _SlotPool) -> Task | None:
        """The next task, ``None`` at the end."""
        desk = self._desk
        while True:
            with self._changed:
                if desk.closing:
                    return None
                if desk.waiting:
                    desk.running = True
                    return desk.waiting.popleft()
                self._changed.wait(_IDLE_S)
                idle = not desk.waiting
            if idle:
                pool.poll(0)  # it hears that its process is ready, or has died

    def _settle(self, reports: list[Report], seconds: float) -> None:
        desk = self._desk
        with self._changed:
            if not desk.done:
                desk.flush_at = time.monotonic() + FLUSH_S
            desk.done += [(report, seconds) for report in reports]
            desk.running = desk.cancelled = False
            # one that waits for more has its own alarm clock
            if not desk.waiting or len(desk.done) == len(reports):
                self._changed.notify_all()


def _refuse_lost_device(reports: list[Report]) -> None:
    """Have the actor given up whose device cannot be used, for it would lose all that it is given."""
    for report in reports:
        if report.outcome.metrics.get(DEVICE_LOST):
            raise WorkerError(report.outcome.message)


def _gpu_uuids(visible: str) -> list[str]:
    """The devices in ``CUDA_VISIBLE_DEVICES`` by UUID, by their number where that cannot be had."""
    devices = [name for name in visible.split(",") if name]
    program = shutil.which("nvidia-smi")
    if program is None or not all(name.isdigit() for name in devices):
        return devices
    query = [program, "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return devices
    lines = [line.split(",") for line in done.stdout.splitlines()]
    uuids: dict[str, Any] = {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}
    return [uuids.get(name, name) for name in devices]
