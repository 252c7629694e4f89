"""A machine that takes no time: compile workers and devices as an event simulation."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Machine", "Usage"]

Task = TypeVar("Task")


@dataclass(frozen=True, slots=True)
class Usage:
    """What became of a simulated search.

    Attributes:
        elapsed_s: Virtual seconds from its start to the last outcome, or to the limit.
        workers_busy: Share of that time in which a compile worker compiled, 0 to 1.
        devices_busy: Share of it in which a device ran something.
    """

    elapsed_s: float
    workers_busy: float
    devices_busy: float


class Machine(Generic[Task]):
    """Compile workers that feed devices.

    A task is compiled on any free worker, waits, and runs on any free device, first come, first served. A
    free worker starts something new as long as fewer than one task for each worker and one for each device
    are compiling or waiting for a device: that keeps both busy whichever is slower, and nothing is proposed
    much before it can run, when more would be known. Proposing takes no time.

    Args:
        workers: How many compile workers.
        devices: How many devices.
        ask: The next tasks, none if there is nothing to do before something ends.
        cost: Seconds of compiling, and seconds on a device (0: it never comes to one).
        tell: Called with a task and the moment it ended, in the order of these moments.
    """

    def __init__(
        self,
        workers: int,
        devices: int,
        ask: Callable[[], Sequence[Task]],
        cost: Callable[[Task], tuple[float, float]],
        tell: Callable[[Task, float], None],
    ) -> None:
        self._workers, self._devices = workers, devices
        self._ask, self._cost, self._tell = ask, cost, tell
        self._now = 0.0
        self._events: list[tuple[float, int, bool, Task, float]] = []
        self._number = 0
        self._compiling = self._running = 0
        self._busy = {False: 0.0, True: 0.0}
        self._asked: deque[Task] = deque()
        self._compiled: deque[tuple[Task, float]] = deque()

    def run(self, until_s: float = math.inf) -> Usage:
        """Simulate until nothing is left to do, or to a moment; what is not done then is not told."""
        self._start_all()
        while self._events and self._events[0][0] <= until_s:
            self._now = self._events[0][0]
            while self._events and self._events[0][0] == self._now:  # all are told before more is asked
                self._end(*heapq.heappop(self._events)[2:])
            self._start_all()
        if self._events:
            self._now = until_s
            for end, _, on_device, *_ in self._events:
                self._busy[on_device] -= end - until_s
        total = self._now or 1.0
        return Usage(
            self._now,
            self._busy[False] / (total * self._workers),
            self._busy[True] / (total * self._devices),
        )

    def _start_all(self) -> None:
        while self._compiled and self._running < self._devices:
            task, run_s = self._compiled.popleft()
            self._running += 1
            self._start(True, run_s, task, run_s)
        most = self._workers + self._devices
        while self._compiling < self._workers and self._compiling + len(self._compiled) < most:
            if not self._asked:
                self._asked.extend(self._ask())
            if not self._asked:
                return
            task = self._asked.popleft()
            compile_s, run_s = self._cost(task)
            self._compiling += 1
            self._start(False, compile_s, task, run_s)

    def _start(self, on_device: bool, seconds: float, task: Task, run_s: float) -> None:
        self._busy[on_device] += seconds
        self._number += 1  # of two that end at once, the one that began first
        heapq.heappush(self._events, (self._now + seconds, self._number, on_device, task, run_s))

    def _end(self, on_device: bool, task: Task, run_s: float) -> None:
        if on_device:
            self._running -= 1
        else:
            self._compiling -= 1
            if run_s > 0:
                self._compiled.append((task, run_s))
                return
        self._tell(task, self._now)
