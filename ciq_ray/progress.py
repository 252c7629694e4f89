"""How far a search is: a live view in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ciq_ray.live_view import LiveView

__all__ = ["Progress", "RaceProgress", "Standing", "interval"]

_LINE_EVERY_S = 30.0
_RATE_OVER_S = 30.0
"""The rate is that of the last so many seconds, for evaluations may become faster or slower."""


@dataclass
class Standing:
    """How a search stands.

    Attributes:
        total: Evaluations planned, ``None`` if nobody knows.
        done: How many there are, those of an earlier process included.
        time_budget_s: Seconds after which nothing new is sent, ``None`` for no such limit.
        default: The configuration in use today, ``None`` if there is none.
        failures: How many failed, by kind.
        best: The best so far, as a text; empty before the first success.
        best_config: Its configuration, ``None`` where no single one is the best.
        improvements: Number of the evaluation and score, at each improvement of a single score.
        places: When each worker last reported, and the node it is on, if known.
        initial: As `done` was at the beginning.
        started: When that was.
    """

    total: int | None = None
    done: int = 0
    time_budget_s: float | None = None
    default: Any = None
    failures: Counter[str] = field(default_factory=Counter)
    best: str = ""
    best_config: Any = None
    improvements: list[tuple[int, float]] = field(default_factory=list)
    places: dict[str, tuple[float, str]] = field(default_factory=dict)
    started: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self) -> None:
        self.initial = self.done
        self._marks = deque([(self.started, self.done)])

    def rate(self, now: float) -> float:
        """Evaluations for each second, lately."""
        while len(self._marks) > 1 and now - self._marks[1][0] >= _RATE_OVER_S:
            self._marks.popleft()
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, self.done))
        since, done = self._marks[0]
        return (self.done - done) / max(now - since, 1e-9)

    def left_s(self, now: float) -> float | None:
        """Seconds that are left by the number of evaluations or by the time, whichever is less."""
        limits = []
        rate = self.rate(now)
        if self.total is not None and rate:
            limits.append(max(self.total - self.done, 0) / rate)
        if self.time_budget_s is not None:
            limits.append(max(self.started + self.time_budget_s - now, 0.0))
        return min(limits) if limits else None


class Progress:
    """Shows evaluations done, the best so far, failures, evaluations per second and time left.

    In a terminal that can do so it is `ciq_ray.live_view.LiveView`; elsewhere (a file, a pipe, a notebook,
    ``TERM=dumb``) a line is written at most every 30 seconds, and one at the end of what took longer.

    Args:
        total: Evaluations planned, ``None`` if nobody knows.
        done: Evaluations that an earlier process made.
        time_budget_s: Seconds after which nothing new is sent, ``None`` for no such limit.
        default: The configuration in use today, to show what the best changes.
        disable: Show nothing.
        stream: Where to; standard error by default.
    """

    def __init__(
        self,
        total: int | None,
        *,
        done: int = 0,
        time_budget_s: float | None = None,
        default: Any = None,
        disable: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._disabled = disable
        self._standing = Standing(total, done, time_budget_s, default)
        self._shown = self._standing.started
        self._view: LiveView | None = None
        if not disable and self._stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb"):
            from ciq_ray.live_view import LiveView

            self._view = LiveView(self._standing, self._stream)

    def update(
        self,
        *,
        status: str = "ok",
        best: str = "",
        best_config: Any = None,
        best_score: float | None = None,
        worker: str = "",
        place: Mapping[str, str] | None = None,
    ) -> None:
        """One evaluation more.

        Args:
            status: ``ok`` or the kind of failure.
            best: The best so far, as a text.
            best_config: Its configuration, ``None`` where no single one is the best.
            best_score: Its score, ``None`` where no single one counts.
            worker: Where the evaluation ran.
            place: Node and actor of that, as far as known.
        """
        standing = self._standing
        standing.done += 1
        if status != "ok":
            standing.failures[status] += 1
        standing.best, standing.best_config = best, best_config
        if best_score is not None and (
            not standing.improvements or standing.improvements[-1][1] != best_score
        ):
            standing.improvements.append((standing.done, best_score))
        if self._disabled:
            return
        now = time.monotonic()
        if worker or place:
            name = (place or {}).get("actor", worker)
            standing.places[name] = (now, (place or {}).get("node", ""))
        if self._view is not None:
            self._view.refresh(now)
        elif now - self._shown >= _LINE_EVERY_S:
            self._line(now)

    def tick(self) -> None:
        """Refresh the clock while nothing happens."""
        if self._view is not None:
            self._view.refresh(time.monotonic())

    def close(self) -> None:
        """Leave the last state on the screen; more calls do nothing."""
        if self._view is not None:
            self._view.close()
        elif not self._disabled and self._shown > self._standing.started:
            self._line(time.monotonic())
        self._view, self._disabled = None, True

    def _line(self, now: float) -> None:
        self._shown = now
        standing = self._standing
        total = "" if standing.total is None else f"/{standing.total}"
        failed = f", {standing.failures.total()} failed" if standing.failures else ""
        rate, left_s = standing.rate(now), standing.left_s(now)
        left = "" if left_s is None else f", {interval(left_s)} left"
        best = standing.best or "none yet"
        self._stream.write(f"{standing.done}{total} evaluations, best {best}{failed}, {rate:.1f}/s{left}\n")
        self._stream.flush()


def interval(seconds: float) -> str:
    """A time span as a clock shows it."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes:02}:{left:02}"


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
