"""Ends that leave nothing behind: signals that raise, and a part that they do not interrupt."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["Terminated", "raising", "uninterrupted"]

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_INTERRUPTING: Final = (*_ENDING, signal.SIGINT)


class Terminated(SystemExit):
    """The process was asked to end; a worker process does not take it for a failure of the objective."""

    ends_process = True


@contextmanager
def raising() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise `Terminated`, a `SystemExit`, so that ``finally`` blocks run.

    Handlers that somebody else has installed stay. So does everything outside of the main thread, where
    Python allows no handlers. A process that is forked within dies of the signal as it would have.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pid = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != pid:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        raise Terminated(128 + number)

    ours = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is end:
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within, signals that would end this are kept, and have their effect afterwards; in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept: list[int] = []
    before = {number: signal.getsignal(number) for number in _INTERRUPTING}
    changed = [number for number, handler in before.items() if handler not in (None, signal.SIG_IGN)]
    for number in changed:
        signal.signal(number, lambda number, frame: kept.append(number))
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])
        for received in dict.fromkeys(kept):
            signal.raise_signal(received)
