"""Ctrl-C: once to stop in good order, twice to stop at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Interrupts"]


class Interrupts:
    """While this context is open, the first SIGINT sets `requested` and the second raises.

    SIGTERM raises `SystemExit` (status 143) at once, so that ``finally`` blocks run. Outside the main
    thread, where Python allows no signal handlers, signals stay as they are.

    Attributes:
        requested: Whether to stop in good order.
    """

    def __init__(self) -> None:
        self.requested = False
        self._waits = self._waited = False
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def afterwards(self) -> Iterator[Callable[[], bool]]:
        """Within, something is waited for after the search: the first SIGINT ends only that.

        Yields:
            Whether there was one.
        """
        self._waits, self._waited = True, False
        try:
            yield lambda: self._waited
        finally:
            self._waits = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._waits and not self._waited:
            self._waited = True
            print("\nleaving the rest for later; press Ctrl-C again to stop at once", file=sys.stderr)
            return
        if self.requested or self._waits:
            raise KeyboardInterrupt
        self.requested = True
        print(
            "\nstopping: waiting for the evaluations in flight; press Ctrl-C again to stop at once",
            file=sys.stderr,
        )

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)
