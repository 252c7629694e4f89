"""A thread that keeps limits, whatever the thread that drives the search is busy with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["KILL_DELAY_S", "Watch"]

KILL_DELAY_S: Final = 0.25
"""Seconds between the polite end and the certain one."""

_LONGEST_WAIT_S = 3600.0


class Mortal(Protocol):
    """What can be ended."""

    def terminate(self) -> None:
        """Ask it to end."""
        ...


P = TypeVar("P", bound=Mortal)


class Watch(Generic[P]):
    """Ends what is not done in time: SIGTERM at the limit, SIGKILL to all of its family soon after.

    A limit is either kept or missed, and both sides agree on which: `disarm` says so.

    Args:
        kill: Ends all of these for certain.
    """

    def __init__(self, kill: Callable[[Collection[P]], None]) -> None:
        self._kill = kill
        self._limits: dict[P, float] = {}
        self._dying: dict[P, float] = {}
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._next = float("inf")
        self._ended = False

    def arm(self, process: P, at: float) -> None:
        """End `process` at the time `at` (of ``time.monotonic``) unless it is disarmed before."""
        with self._condition:
            if process in self._dying:
                return
            self._limits[process] = at
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ciq-limits", daemon=True)
                self._thread.start()
            # most limits come in order, so that the thread is seldom woken for a new one
            elif at < self._next:
                self._condition.notify()

    def disarm(self, process: P) -> bool:
        """Lift the limit of `process`; ``False`` if it was missed and the process is being ended."""
        with self._condition:
            self._limits.pop(process, None)
            return process not in self._dying

    def forget(self, process: P) -> None:
        """The process is dead."""
        with self._condition:
            self._limits.pop(process, None)
            self._dying.pop(process, None)

    def close(self) -> None:
        """End the thread; no limit is kept any more."""
        with self._condition:
            self._ended = True
            self._limits.clear()
            self._dying.clear()
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with self._condition:
            while not self._ended:
                now = time.monotonic()
                for process in [p for p, at in self._limits.items() if at <= now]:
                    del self._limits[process]
                    self._dying[process] = now + KILL_DELAY_S
                    process.terminate()
                overdue = [process for process, at in self._dying.items() if at <= now]
                if overdue:
                    for process in overdue:
                        self._dying[process] = float("inf")
                    self._condition.release()
                    try:
                        self._kill(overdue)
                    finally:
                        self._condition.acquire()
                    continue
                self._next = min((*self._limits.values(), *self._dying.values()), default=float("inf"))
                self._condition.wait(min(self._next - now, _LONGEST_WAIT_S))
