"""What all pools of worker processes share: their processes, the loop over their messages, their end."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import secrets
import selectors
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Final

from ciq_ray.errors import ConfigurationError, WorkerError
from ciq_ray.worker.guard import Guard, kill_families, mark_name
from ciq_ray.worker.payload import Pickler, check_objective
from ciq_ray.worker.process import HAS_PIDFD, WorkerProcess, kill
from ciq_ray.worker.protocol import NO_BASELINE, Report, Task
from ciq_ray.worker.watch import Watch
from searchers.outcome import FAILURES, Outcome

__all__ = ["Death", "Pool", "available_cpus", "failure_message", "positive_count", "positive_seconds"]

_START_LIMIT_S: Final = 300.0
_START_ATTEMPTS: Final = 3
_LEAVE_LIMIT_S: Final = 1.0
_CLOSE_LIMIT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended.

    Attributes:
        reason: In words.
        late: Whether it was ended because it missed its limit.
        seen_at: When that was noticed, in seconds of ``time.monotonic``.
    """

    reason: str
    late: bool
    seen_at: float


def available_cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def failure_message(message: str, output: str) -> str:
    """A message with the last output of the evaluation, if there was any."""
    return f"{message}\n--- last output ---\n{output}" if output else message


class Pool(ABC):
    """Processes that evaluate one objective; see `ciq_ray.worker.protocol.StreamingWorker`.

    Args:
        function: The objective.
        num_workers: How many evaluations may run at a time.
        task_timeout: Seconds for one evaluation, or ``None``.
        num_objectives: How many numbers it returns.
        baseline_config: What to measure a baseline with, or `NO_BASELINE`.
        log_dir: Folder for the output of the processes; a temporary one if ``None``.
        end_grace_s: Seconds that a process has to put things back after a SIGTERM, before it is killed
            (also when the driver has died); 0: it is killed at once.

    Raises:
        ConfigurationError: An argument cannot be used, or the objective cannot be sent to a process.
        WorkerError: Processes cannot be started.
    """

    mode: ClassVar[str]

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        num_workers: int,
        task_timeout: float | None = None,
        num_objectives: int = 1,
        baseline_config: Any = NO_BASELINE,
        log_dir: Path | None = None,
        end_grace_s: float = 0.0,
    ) -> None:
        check_objective(function, asynchronous=self.mode == "async")
        self._num_workers = positive_count("num_workers", num_workers)
        self._num_objectives = positive_count("num_objectives", num_objectives)
        self._limit = positive_seconds("task_timeout", task_timeout)
        self._pickler = Pickler(function)
        self._baseline = None if baseline_config is NO_BASELINE else self._pickler.config(baseline_config)

        self._end_grace_s = end_grace_s
        self._reports: list[Report] = []
        self._processes: set[WorkerProcess] = set()
        self._started = 0
        self._failed_starts = 0
        self._error: WorkerError | None = None
        self._closed = False
        self._mark = mark_name(secrets.token_hex(8))
        self._resources = contextlib.ExitStack()
        try:
            self._setup: IO[bytes] = self._resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            self._write_setup(self._setup)
            self._log_dir = self._make_log_dir(log_dir)
            self._selector = self._resources.enter_context(selectors.DefaultSelector())
            self._watch: Watch[WorkerProcess] = Watch(kill)
            self._resources.callback(self._watch.close)
            self._guard = Guard(f"{self._mark}=", end_grace_s)
            self._resources.callback(self._guard.close)
            self._start_first()
        except OSError as error:
            self.close()
            raise WorkerError(f"cannot start worker processes: {error}") from error
        except BaseException:
            self.close()
            raise

    # --- what a kind of pool supplies ---

    @abstractmethod
    def _start_first(self) -> None:
        """Start the first processes."""

    @property
    @abstractmethod
    def free(self) -> int:
        """How many tasks can be submitted now."""

    @abstractmethod
    def _accept(self, task: Task, config: bytes) -> None:
        """Take a task on; there is room for it."""

    @abstractmethod
    def _on_ready(self, process: WorkerProcess) -> None:
        """A process has loaded the objective."""

    @abstractmethod
    def _on_message(self, process: WorkerProcess, message: tuple[Any, ...]) -> None:
        """A process has written something else."""

    @abstractmethod
    def _on_death(self, process: WorkerProcess, death: Death) -> None:
        """A process has ended; it is reaped."""

    @abstractmethod
    def _drop_all(self) -> tuple[list[str], list[WorkerProcess]]:
        """Forget all tasks in flight: their ids, and the processes that run them."""

    # --- the protocol ---

    def fileno(self) -> int:
        """What becomes readable when there is something for `poll` to take."""
        return self._selector.fileno()

    def submit(self, task: Task) -> None:
        """Send a task on its way; see the protocol."""
        self._check()
        if self.free < 1:
            raise WorkerError(f"task {task.id!r}: nothing is free; check `free` before `submit`")
        self._accept(task, self._pickler.config(task.config))

    def poll(self, timeout: float) -> list[Report]:
        """Wait for reports; see the protocol."""
        self._check()
        deadline = time.monotonic() + timeout
        try:
            while True:
                remaining = deadline - time.monotonic()
                self._pump(remaining)
                if self._reports or remaining <= 0:
                    break
        except WorkerError as error:
            self._error = error
            raise
        reports, self._reports = self._reports, []
        return reports

    def cancel(self) -> list[str]:
        """Stop everything in flight; see the protocol."""
        if self._closed:
            return []
        with contextlib.suppress(WorkerError):
            self._pump(0)  # what has come back already is a result
        ids, processes = self._drop_all()
        kill(processes, self._end_grace_s)
        for process in processes:
            self._remove(process)
        return ids

    def close(self) -> None:
        """End all processes; see the protocol."""
        if self._closed:
            return
        self._closed = True
        try:
            self._end_processes()
        finally:
            self._resources.close()

    # --- processes ---

    def _start(self, name: str, log_name: str) -> WorkerProcess:
        self._started += 1
        log = self._log_dir / f"{log_name}.log"
        process = WorkerProcess(name, log, self._setup.fileno(), (self._mark, str(self._started)))
        self._processes.add(process)
        self._guard.add(process.pid)
        self._selector.register(process.socket, selectors.EVENT_READ, (process, False))
        if process.pidfd is not None:
            self._selector.register(process.pidfd, selectors.EVENT_READ, (process, True))
        self._watch.arm(process, time.monotonic() + _START_LIMIT_S)
        return process

    def _let_leave(self, process: WorkerProcess) -> None:
        """The process is done and ends by itself; it is ended if it does not."""
        process.leaving = True
        self._watch.arm(process, time.monotonic() + _LEAVE_LIMIT_S)

    def _pump(self, timeout: float) -> None:
        if not HAS_PIDFD:
            timeout = min(timeout, 0.1)
        for key, _ in self._selector.select(max(0.0, timeout)):
            process, dead = key.data
            if process in self._processes:
                self._read(process, dead)
        if not HAS_PIDFD:
            for process in [process for process in self._processes if process.has_ended()]:
                self._read(process, dead=True)

    def _read(self, process: WorkerProcess, dead: bool) -> None:
        messages, closed = process.receive(to_the_end=dead)
        for message in messages:
            if message[0] == "ready":
                if self._watch.disarm(process):
                    process.ready = True
                    self._failed_starts = 0
                    self._on_ready(process)
            elif message[0] == "broken":
                raise WorkerError(
                    "a worker process cannot load the objective; what it needs must be importable there, "
                    f"or be created inside the function:\n{message[1]}"
                )
            else:
                self._on_message(process, message)
        if process.leaving and closed and not dead:
            self._selector.unregister(process.socket)  # its end follows
        elif (dead or closed) and process in self._processes:
            self._bury(process)

    def _bury(self, process: WorkerProcess) -> None:
        # the connection ends a moment before its process does, unless it was the objective that closed it
        lost = not process.ends_within(_CLOSE_LIMIT_S)
        late = not self._watch.disarm(process)
        seen_at = time.monotonic()
        # one that left by itself was done; looking through all processes for what it may have
        # left behind is for `close`
        if not process.leaving:
            kill([process])
        reason = self._remove(process)
        if lost and not late:
            reason = "lost its connection to the search (the objective closed it or wrote to it)"
        if process.ready:
            self._on_death(process, Death(reason, late, seen_at))
            return
        self._failed_starts += 1
        if late or self._failed_starts >= _START_ATTEMPTS:
            what = f"used up {_START_LIMIT_S:g} s" if late else reason
            raise WorkerError(
                failure_message(
                    f"a worker process {what} before it had loaded the objective", process.log_tail()
                )
            )
        self._on_death(process, Death(reason, late, seen_at))

    def _remove(self, process: WorkerProcess) -> str:
        """Reap a process that is dead or dying; how it ended."""
        self._processes.discard(process)
        self._watch.forget(process)
        for fd in (process.socket, process.pidfd):
            with contextlib.suppress(KeyError, ValueError):
                if fd is not None:
                    self._selector.unregister(fd)
        self._guard.remove(process.pid)
        return process.reap()

    def _end_processes(self) -> None:
        if not self._started:
            return
        _, busy = self._drop_all()
        kill(busy, self._end_grace_s)
        # the others end when their connection does, and may clean up behind them
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.socket.shutdown(2)
        deadline = time.monotonic() + max(_CLOSE_LIMIT_S, self._end_grace_s)
        for process in self._processes:
            process.ends_within(deadline - time.monotonic())
        kill_families([process.pid for process in self._processes], [f"{self._mark}="])
        for process in list(self._processes):
            self._remove(process)

    # --- preparation ---

    def _write_setup(self, file: IO[bytes]) -> None:
        setup = {
            "function": self._pickler.function,
            "num_objectives": self._num_objectives,
            "failures": FAILURES,
            "argv": list(sys.argv),
            "mode": self.mode,
            "timeout": self._limit,
        }
        file.write(pickle.dumps(setup, pickle.HIGHEST_PROTOCOL))
        file.flush()

    def _make_log_dir(self, log_dir: Path | None) -> Path:
        if log_dir is None:
            return Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="ciq-")))
        path = Path(log_dir).absolute()
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _check(self) -> None:
        if self._closed:
            raise WorkerError("the worker is closed; open it again")
        if self._error is not None:
            raise self._error

    # --- helpers of the kinds ---

    def _outcome(self, process: WorkerProcess, message: tuple[Any, ...], log_start: int) -> Outcome:
        """The outcome in a ``done`` message."""
        _, _, status, values, text, explained, details, run_s, _ = message
        if not explained:
            text = failure_message(text, process.log_tail(log_start))
        return Outcome(status, values, message=text, **{"run_s": run_s, **details})

    def _limit_of(self, task: Task) -> float | None:
        """Seconds that a task may take."""
        limits = [limit for limit in (self._limit, task.limit_s) if limit is not None]
        return min(limits, default=None)

    def _ended(
        self, death: Death, process: WorkerProcess, log_start: int, run_s: float, limit: float | None
    ) -> Outcome:
        """The outcome of a task whose process did not survive it."""
        status = "run_timeout" if death.late else "run_error"
        text = f"the worker process {death.reason} during the evaluation"
        if death.late:
            text = f"the evaluation took longer than {limit or 0:g} s"
        return Outcome(status, message=failure_message(text, process.log_tail(log_start)), run_s=run_s)


def positive_count(name: str, value: Any) -> int:
    """`value`, if it is a whole number above 0; else a `ConfigurationError` that names the argument."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"`{name}` is {value!r}; it must be an integer above 0")
    return value


def positive_seconds(name: str, value: Any) -> float | None:
    """`value`, if it is a time or ``None``; else a `ConfigurationError` that names the argument."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(f"`{name}` is {value!r}; it must be a number of seconds above 0, or None")
    return float(value)
