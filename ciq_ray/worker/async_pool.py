"""ASYNC: one process with an event loop that runs several evaluations at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from ciq_ray.worker.baseline import baseline_values
from ciq_ray.worker.pool import Death, Pool
from ciq_ray.worker.process import WorkerProcess, kill
from ciq_ray.worker.protocol import Report, Task
from searchers.outcome import Outcome

__all__ = ["AsyncPool"]

_GRACE_S: Final = 0.4
"""Seconds the loop has to end a task that is over its limit, before its process is ended."""
_SEND_ATTEMPTS: Final = 3
_BASELINE_ID: Final = "\0baseline"
_NAME: Final = "async"


@dataclass(slots=True, eq=False)
class _Flight:
    task: Task
    config: bytes
    sends: int = 0
    sent_at: float = 0.0
    # by the clock of the loop, which is the clock of this process; None until its coroutine runs
    started_at: float | None = None
    log_start: int = 0
    alone: bool = False
    baseline: tuple[float, ...] | None = None

    @property
    def is_baseline(self) -> bool:
        return self.task.id == _BASELINE_ID


class AsyncPool(Pool):
    """One process, one event loop, `num_workers` coroutines.

    The loop cancels a coroutine at its limit. If a coroutine blocks the loop for so long that this
    cannot happen, the process is ended: tasks over their limit fail, the others are sent again.
    If the process dies with several tasks running, they are run again one by one, so that only the
    one that kills it fails. The loop measures the baseline before its first task and before the first
    task of a new generation, which waits for it; tasks under way go on.
    """

    mode: ClassVar[str] = "async"

    def _start_first(self) -> None:
        self._flights: dict[str, _Flight] = {}
        self._waiting: deque[_Flight] = deque()
        self._suspects: deque[_Flight] = deque()
        self._values: tuple[float, ...] | None = None
        self._values_generation = 0
        self._baseline_sends = 0
        self._process: WorkerProcess | None = self._start(_NAME, _NAME)

    @property
    def free(self) -> int:
        """How many tasks can be submitted now."""
        measuring = _BASELINE_ID in self._flights
        taken = len(self._flights) - measuring + len(self._waiting) + len(self._suspects)
        return self._num_workers - taken

    def _accept(self, task: Task, config: bytes) -> None:
        self._waiting.append(_Flight(task, config))
        if self._process is None:
            self._process = self._start(_NAME, _NAME)
        self._dispatch()

    def _on_ready(self, process: WorkerProcess) -> None:
        self._dispatch()

    def _on_message(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        flight = self._flights.get(message[1])
        if flight is None or process is not self._process:
            return
        if message[0] == "started":
            flight.started_at = message[2]
        else:
            del self._flights[message[1]]
            self._settle(flight, self._outcome(process, message, flight.log_start), process.pid, message[-1])
            self._dispatch()
        self._set_limit()

    def _on_death(self, process: WorkerProcess, death: Death) -> None:
        if process is not self._process:
            return
        flights, self._flights = list(self._flights.values()), {}
        self._process, self._values = None, None
        started = [flight for flight in flights if flight.started_at is not None]
        if death.late:
            guilty = [flight for flight in started if self._is_over(flight, death.seen_at)]
        else:
            guilty = started if len(started) == 1 else []
        suspects = [] if death.late or guilty else started
        for flight in reversed([flight for flight in flights if flight not in guilty]):
            self._send_again(flight, flight in suspects, death, process)
        if self._waiting or self._suspects:
            self._process = self._start(_NAME, _NAME)
        for flight in guilty:
            run_s = death.seen_at - (flight.started_at or flight.sent_at)
            outcome = self._ended(death, process, flight.log_start, run_s, self._limit)
            self._settle(flight, outcome, process.pid)

    def _drop_all(self) -> tuple[list[str], list[WorkerProcess]]:
        flights = [*self._flights.values(), *self._suspects, *self._waiting]
        running = bool(self._flights)
        for collection in (self._flights, self._suspects, self._waiting):
            collection.clear()
        processes = []
        if running and self._process is not None:
            processes.append(self._process)
            self._process, self._values = None, None
        return [flight.task.id for flight in flights if not flight.is_baseline], processes

    # --- tasks on their way ---

    def _dispatch(self) -> None:
        """Send what can be sent now."""
        process = self._process
        while process is not None and process.ready:
            queue = self._suspects or self._waiting
            # a suspect runs alone: if the process dies again, it is known why
            if not queue or any(flight.alone for flight in self._flights.values()):
                return
            if queue is self._suspects and self._flights:
                return
            generation = queue[0].task.generation
            if self._baseline is not None and (self._values is None or self._values_generation < generation):
                if _BASELINE_ID not in self._flights:
                    self._baseline_sends += 1
                    task = Task(_BASELINE_ID, None, generation)
                    self._send(process, _Flight(task, self._baseline))
                return
            flight = queue[0]
            flight.alone = queue is self._suspects
            flight.baseline = self._values
            if not self._send(process, flight):
                return
            queue.popleft()

    def _send(self, process: WorkerProcess, flight: _Flight) -> bool:
        flight.log_start = process.log_size() if self._flights else process.trim_log()
        flight.sent_at, flight.started_at = time.monotonic(), None
        try:
            process.send(flight.task.id, flight.config, flight.task.compile_timeout, flight.task.context)
        except OSError:
            kill([process])  # its end will be noticed, and the task sent to the next
            return False
        self._flights[flight.task.id] = flight
        flight.sends += 1
        self._set_limit()
        return True

    def _set_limit(self) -> None:
        """Have the process ended if the loop does not end an evaluation that is over its limit."""
        if self._limit is None or self._process is None:
            return
        begins = [flight.started_at or flight.sent_at for flight in self._flights.values()]
        if begins:
            self._watch.arm(self._process, min(begins) + self._limit + _GRACE_S)
        else:
            self._watch.disarm(self._process)

    def _is_over(self, flight: _Flight, now: float) -> bool:
        started = flight.started_at
        return self._limit is not None and started is not None and started + self._limit <= now

    def _send_again(self, flight: _Flight, suspect: bool, death: Death, process: WorkerProcess) -> None:
        """A task was in a process that died, and it is not known to be the cause."""
        if flight.is_baseline and self._baseline_sends < _SEND_ATTEMPTS:
            return  # the new loop measures it anyway
        if flight.is_baseline or (flight.sends >= _SEND_ATTEMPTS and not suspect):
            outcome = self._ended(
                death, process, flight.log_start, death.seen_at - flight.sent_at, self._limit
            )
            self._settle(flight, outcome, process.pid)
        elif suspect:
            self._suspects.appendleft(flight)
        else:
            self._waiting.appendleft(flight)

    def _settle(
        self, flight: _Flight, outcome: Outcome, pid: int, context: Mapping[str, str] | None = None
    ) -> None:
        if flight.is_baseline:
            self._values = baseline_values(_NAME, outcome)
            self._values_generation = flight.task.generation
            self._baseline_sends = 0
        else:
            self._reports.append(
                Report(flight.task.id, outcome, flight.baseline, _NAME, pid, context=context or {})
            )
