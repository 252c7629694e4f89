"""The worker of a kernel search: a `Pipeline` driven by a thread of its own.

A searcher with a model thinks for tens of milliseconds, in which a device would have been done with one
candidate and wait for the next. So the engine's thread only leaves tasks and takes reports.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ciq_ray.errors import WorkerError
from ciq_ray.worker.protocol import NO_BASELINE, Report, Task

if TYPE_CHECKING:
    from ciq_ray.kernels.pipeline import Pipeline

__all__ = ["KernelWorker"]

_STEP_S: Final = 0.2
_SWITCH_S: Final = 0.0005
"""How soon a searcher that computes lets go of the interpreter, for a device to get its next candidate."""
_END_LIMIT_S: Final = 10.0
_AHEAD: Final = 3
"""Candidates that are compiled and wait, for each place on a device."""


class KernelWorker:
    """See `ciq_ray.worker.protocol.StreamingWorker`; made by `ciq_ray.kernels.stations.Stations`.

    Args:
        make: Makes the pipeline, in the thread that will drive it.
        max_resends: How often a candidate that was lost or throttled is sent again.
    """

    def __init__(self, make: Callable[[], Pipeline], max_resends: int | None = None) -> None:
        self._make = make
        self.max_resends = max_resends
        self._thread: threading.Thread | None = None
        self._lock = threading.Condition()
        self._tasks: deque[Task] = deque()
        self._reports: list[Report] = []
        self._out: set[str] = set()
        self._most = 1
        self._error: BaseException | None = None
        self._wish = ""
        self._over = threading.Event()
        self._wake, self._bell = -1, -1
        self._switches = 0.005

    def open(
        self,
        function: Callable[[Any], Any],
        *,
        num_workers: int | None = None,
        task_timeout: float | None = None,
        num_objectives: int = 1,
        baseline_config: Any = NO_BASELINE,
        log_dir: Path | None = None,
    ) -> None:
        """Start; what the arguments say was said when this worker was made."""
        if self._thread is not None:
            raise WorkerError("the worker is open already; `close` it first")
        self._wish, self._error = "", None
        self._over.clear()
        self._wake, self._bell = os.pipe()
        for number in (self._wake, self._bell):
            os.set_blocking(number, False)
        self._switches = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._thread = threading.Thread(target=self._work, name="ciq-kernels", daemon=True)
        self._thread.start()

    @property
    def free(self) -> int:
        """How many tasks can be submitted without waiting long behind others."""
        with self._lock:
            return 0 if self._thread is None else max(0, self._most - len(self._out))

    def submit(self, task: Task) -> None:
        """Send a task on its way; see the protocol."""
        with self._lock:
            self._check()
            self._tasks.append(task)
            self._out.add(task.id)
        self._ring()

    def poll(self, timeout: float) -> list[Report]:
        """Wait for reports; see the protocol."""
        with self._lock:
            self._lock.wait_for(lambda: bool(self._reports) or self._error is not None, timeout)
            if not self._reports:
                self._check()
            reports, self._reports = self._reports, []
            self._out.difference_update(report.task_id for report in reports)
            return reports

    def cancel(self) -> list[str]:
        """Stop everything in flight; see the protocol."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                return []
            self._wish = "cancel"
            self._ring()
            self._lock.wait_for(lambda: not self._wish or self._error is not None)
            # what is reported already is a result that `poll` still gives
            reported = {report.task_id for report in self._reports}
            cancelled = [name for name in self._out if name not in reported]
            self._out.intersection_update(reported)
            return cancelled

    def close(self) -> None:
        """End what this worker has started; devices stay as they are. More calls do nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._lock:
            self._wish = "close"
            self._ring()
        sys.setswitchinterval(self._switches)
        try:
            self._over.wait()
        except BaseException:  # Ctrl-C, or SIGTERM; what is being ended has to be ended all the same
            # (`Thread.join` may take a thread for ended once it was interrupted itself)
            self._over.wait(_END_LIMIT_S)
            raise
        thread.join()
        for number in (self._wake, self._bell):
            os.close(number)

    # --- the thread ---

    def _work(self) -> None:
        try:
            with contextlib.closing(self._make()) as pipeline:
                while self._turn(pipeline):
                    pass
        except BaseException as error:  # whatever it is, the engine has to hear of it
            with self._lock:
                self._error = error
                self._lock.notify_all()
        finally:
            self._over.set()

    def _turn(self, pipeline: Pipeline) -> bool:
        with self._lock:
            wish, tasks = self._wish, [*self._tasks]
            self._tasks.clear()
        if wish == "close":
            return False
        if wish == "cancel":
            pipeline.cancel()
            with self._lock:
                self._wish = ""
                self._lock.notify_all()
            return True
        for task in tasks:
            pipeline.submit(task)
        reports = pipeline.step(_STEP_S, self._wake)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 65536)
        capacity = pipeline.capacity
        with self._lock:
            self._most = capacity + max(2, capacity // 3) + _AHEAD * max(1, pipeline.places)
            if reports:
                self._reports += reports
                self._lock.notify_all()
        return True

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._bell, b"!")

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._thread is None:
            raise WorkerError("the worker is not open; call `open` first")
