"""How far a search is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Never, TextIO

from tqdm import tqdm

__all__ = ["Progress", "RaceProgress"]

_LINE_EVERY_S = 30.0


class Progress:
    """Shows evaluations done, the best so far, failures, evaluations per second and time left.

    Args:
        total: Evaluations planned, ``None`` if nobody knows.
        done: Evaluations that an earlier process made.
        disable: Show nothing.
        stream: Where to; standard error by default. If it is not a terminal, a line is written at
            most every 30 seconds, and one at the end of what took longer.
    """

    def __init__(
        self, total: int | None, *, done: int = 0, disable: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._disabled = disable
        self._terminal = not disable and self._stream.isatty()
        self._total = total
        self._initial = self._done = done
        self._failed = 0
        self._best = ""
        self._started = self._shown = time.monotonic()
        self._bar: tqdm[Never] | None = None
        if self._terminal:
            self._bar = tqdm(
                total=total, initial=done, unit="eval", file=self._stream, dynamic_ncols=True, smoothing=0.1
            )

    def update(self, *, failed: bool, best: str) -> None:
        """One evaluation more."""
        self._done += 1
        self._failed += failed
        self._best = best
        if self._bar is not None:
            self._bar.set_postfix_str(self._state(), refresh=False)
            self._bar.update(1)
        elif not self._disabled and time.monotonic() - self._shown >= _LINE_EVERY_S:
            self._line()

    def tick(self) -> None:
        """Refresh the clock while nothing happens."""
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Leave the last state on the screen; more calls do nothing."""
        if self._bar is not None:
            self._bar.close()
        elif not self._disabled and self._shown > self._started:
            self._line()
        self._disabled = True

    def _state(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"best {self._best or 'none yet'}{failed}"

    def _line(self) -> None:
        now = time.monotonic()
        self._shown = now
        rate = (self._done - self._initial) / max(now - self._started, 1e-9)
        total, left = "", ""
        if self._total is not None:
            total = f"/{self._total}"
            left = f", {tqdm.format_interval((self._total - self._done) / rate)} left" if rate else ""
        self._stream.write(f"{self._done}{total} evaluations, {self._state()}, {rate:.1f}/s{left}\n")
        self._stream.flush()


class RaceProgress:
    """One line that is written over as blocks of a race go by; announcements and verdicts stay.

    Args:
        disable: Show the lines that stay only.
        stream: Where to; standard error by default.
    """

    def __init__(self, *, disable: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._over = not disable and self._stream.isatty()
        self._shown = 0

    def say(self, line: str) -> None:
        """Show a line; those that report a block pass."""
        passing = ": block " in line
        if passing and not self._over:
            return
        self.close()
        self._stream.write(line if passing else f"{line}\n")
        self._stream.flush()
        self._shown = len(line) if passing else 0

    def close(self) -> None:
        """Take a passing line away."""
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._shown = 0
