"""Ends that leave nothing behind: signals that raise, and parts that they do not interrupt."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Self

__all__ = ["Endings", "Terminated"]

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Terminated(SystemExit):
    """The process was asked to end; a worker process does not take it for a failure of the objective."""

    ends_process = True


class Endings:
    """While this context is open, SIGTERM, SIGHUP and SIGINT raise, so that ``finally`` blocks run.

    Where nobody handles them they raise `Terminated`, a `SystemExit`; the handlers of others are called as
    before. In a process that is forked within, a signal that nobody handles ends it as it would have. Outside
    of the main thread, where Python allows no handlers, all stays as it is.

    Attributes:
        deferring: Set, signals are kept until the context ends. A ``finally`` block that must not be
            interrupted begins by setting it: an assignment, unlike a call, leaves no gap for a signal.
    """

    def __init__(self) -> None:
        self.deferring = False
        self._pid = os.getpid()
        self._kept: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            try:
                with _blocked():
                    for number in _ENDING:
                        handler = signal.getsignal(number)
                        # what is ignored stays so, and a handler of C code cannot be put back
                        if handler not in (None, signal.SIG_IGN):
                            self._before[number] = handler
                            signal.signal(number, self._handle)
            except BaseException:  # a signal that came meanwhile
                self._restore()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.deferring = True
        self._restore()
        self.deferring = False
        self._deliver()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, signals are kept, and have their effect at its end."""
        before, self.deferring = self.deferring, True
        try:
            yield
        finally:
            self.deferring = before
        if not self.deferring:
            self._deliver()

    def _restore(self) -> None:
        if self._before:
            with _blocked():
                for number, handler in self._before.items():
                    if signal.getsignal(number) == self._handle:
                        signal.signal(number, handler)

    def _deliver(self) -> None:
        kept, self._kept = self._kept, []
        for number in dict.fromkeys(kept):
            self._handle(number, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.deferring and os.getpid() == self._pid:
            self._kept.append(number)
            return
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
            return
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        raise Terminated(128 + number)


@contextmanager
def _blocked() -> Iterator[None]:
    """Within, signals do not interrupt the exchange of their handlers."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
