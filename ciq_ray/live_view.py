"""The live view of a search in a terminal: a few lines that are drawn again and again.

While others write, the lines must not be in their way. So the cursor always rests at the *beginning* of
the lines: whoever writes to the terminal past this module, even from another process, writes over them
and not below them, and the next drawing clears what is left and goes below. What this process prints to
`sys.stdout` and `sys.stderr` is led past the lines as a whole. The cursor is never hidden and no mode of the
terminal is changed, so that nothing has to be put right after a crash.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

from ciq_ray.progress import Standing, interval

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["LiveView"]

_LEAST_BETWEEN_S = 0.125
_CLEAR: Final = "\r\x1b[J"
_MOST_CHANGES: Final = 12
_SPARK: Final = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH: Final = 32
_NARROW: Final = 50
_RECENT_S: Final = 60.0


class LiveView:
    """Draws how a search stands, at most eight times a second.

    Args:
        standing: What is shown; whoever owns it changes it.
        stream: A terminal.
    """

    def __init__(self, standing: Standing, stream: TextIO) -> None:
        from rich.console import Console

        self._standing = standing
        self._stream = stream
        self._lock = threading.RLock()  # others print from threads of theirs
        self._last = -math.inf
        self._unicode = "utf" in (getattr(stream, "encoding", None) or "").lower()
        # it only turns styles into text: what is written here meets errors in one place
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False)
        self._described: tuple[Any, str] = (None, "")
        self._proxies = [_Past(self, name) for name in ("stdout", "stderr") if _is_terminal(name)]
        self.refresh(time.monotonic())

    def refresh(self, now: float) -> None:
        """Draw, unless that was done a moment ago."""
        if now - self._last < _LEAST_BETWEEN_S:
            return
        with self._lock:
            self._last = now
            self._draw(self._frame(now, ended=False))

    def close(self) -> None:
        """Leave the last state on the screen, and the cursor below it."""
        with self._lock:
            for proxy in self._proxies:
                proxy.restore()
            self._write(_CLEAR + "\n".join(self._frame(time.monotonic(), ended=True)) + "\n")

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the lines away while somebody writes."""
        with self._lock:
            self._write(_CLEAR)
            try:
                yield
            finally:
                self.refresh(time.monotonic())  # of a flood of lines not each one is worth a drawing

    def _draw(self, lines: list[str]) -> None:
        # an empty line above, for whoever writes a line past this module
        below = "".join(f"\n{line}" for line in lines)
        self._write(f"{_CLEAR}{below}\r\x1b[{len(lines)}A")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal has gone; the search goes on
            self._stream.write(text)
            self._stream.flush()

    def _size(self) -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return 80, 24
        return columns or 80, lines or 24  # a serial line knows neither

    def _frame(self, now: float, *, ended: bool) -> list[str]:
        """The lines, each shorter than the terminal is wide, fewer than it is high."""
        columns, height = self._size()
        width = max(columns - 1, 10)
        lines = [self._progress_line(now, width, ended=ended)]
        if width >= _NARROW:
            lines += self._details(now, width, ended=ended)
        with self._console.capture() as capture:
            for line in lines[: max(height - 2, 1)]:
                line.truncate(width, overflow="ellipsis" if self._unicode else "crop")
                self._console.print(line, soft_wrap=True)
        return capture.get().rstrip("\n").split("\n")

    def _progress_line(self, now: float, width: int, *, ended: bool) -> Text:
        from rich.text import Text

        standing = self._standing
        total = standing.total
        counted = f"{standing.done}/{total}" if total else f"{standing.done}"
        parts = [f"{counted} evaluations" if width >= _NARROW else counted]
        rate = (standing.done - standing.initial) / max(now - standing.started, 1e-9)
        parts.append(f"{rate if ended else standing.rate(now):.3g}/s")
        parts.append(interval(now - standing.started))
        left_s = standing.left_s(now)
        if left_s is not None and not ended:
            parts[-1] += f", {interval(left_s)} left"
        if width < _NARROW:
            parts.insert(0, f"best {standing.best or 'none yet'}")
            return Text("  ".join(parts))
        line = Text()
        if total:
            share = min(standing.done / total, 1.0)
            line.append_text(self._bar(share, min(30, width // 4)))
            line.append(f" {share:4.0%}  ", style="bold")
        line.append("  ".join(parts))
        return line

    def _bar(self, share: float, width: int) -> Text:
        from rich.text import Text

        full = round(share * width)
        done, left = ("━", "─") if self._unicode else ("#", "-")
        return Text.assemble((done * full, "green" if share >= 1 else "cyan"), (left * (width - full), "dim"))

    def _details(self, now: float, width: int, *, ended: bool) -> list[Text]:
        from rich.text import Text

        standing = self._standing
        best = Text.assemble("best ", (standing.best or "none yet", "bold green" if standing.best else "dim"))
        spark = self._sparkline()
        if spark:
            best.append(f"  {spark}", style="cyan")
        lines = [best]
        lines += [Text(f"  {line}", style="dim") for line in self._changes(width - 2)]
        if standing.failures:
            kinds = ", ".join(f"{count} {kind}" for kind, count in standing.failures.most_common())
            lines.append(Text.assemble((f"{standing.failures.total()} failed", "yellow"), f": {kinds}"))
        busy = self._busy(now)
        if busy and not ended:
            lines.append(Text(busy, style="dim"))
        return lines

    def _sparkline(self) -> str:
        """The best so far over the evaluations; its height is the score, on a logarithmic scale if wide."""
        found, done = self._standing.improvements, self._standing.done
        if not self._unicode or len(found) < 2:
            return ""
        scores = [score for _, score in found]
        if min(scores) > 0 and max(scores) > 20 * min(scores):
            scores = [math.log(score) for score in scores]
        low, span = min(scores), max(scores) - min(scores)
        first, shown, place = found[0][0], [], 0
        for column in range(_SPARK_WIDTH):
            at = first + (done - first) * column / (_SPARK_WIDTH - 1)
            while place + 1 < len(found) and found[place + 1][0] <= at:
                place += 1
            shown.append(_SPARK[round((scores[place] - low) / (span or 1.0) * (len(_SPARK) - 1))])
        return "".join(shown)

    def _changes(self, width: int) -> list[str]:
        """What the best has that the default has not, in two lines at most."""
        config = self._standing.best_config
        if config is None:
            return []
        if config is not self._described[0]:
            text = _described(config, self._standing.default, self._unicode)
            # a configuration is text from elsewhere, and must not steer the terminal
            text = "".join(letter if letter.isprintable() else "?" for letter in text)
            self._described = (config, text)
        text = self._described[1]
        if len(text) <= width:
            return [text] if text else []
        cut = text.rfind(" ", 0, width)
        cut = cut if cut > 0 else width
        return [text[:cut], text[cut:].strip()]

    def _busy(self, now: float) -> str:
        recent = [node for at, node in self._standing.places.values() if now - at < _RECENT_S]
        nodes = {node for node in recent if node}
        if len(recent) < 2 and not nodes:
            return ""
        where = f" on {len(nodes)} node{'s' if len(nodes) > 1 else ''}" if nodes else ""
        return f"{len(recent)} worker{'s' if len(recent) > 1 else ''}{where} lately"


class _Past:
    """Stands in for a stream of `sys`: whole lines go past the view."""

    def __init__(self, view: LiveView, name: str) -> None:
        self._view = view
        self._name = name
        self._stream: TextIO = getattr(sys, name)
        self._pending = ""
        setattr(sys, name, self)

    def write(self, text: str) -> int:
        with self._view._lock:
            self._pending += text
            whole, end, self._pending = self._pending.rpartition("\n")
            if end:
                with self._view.aside():
                    self._stream.write(whole + end)
                    self._stream.flush()
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._stream.flush()

    def restore(self) -> None:
        """Put the stream back, unless somebody else has put another one there."""
        if self._pending:
            self.write("\n")
        if getattr(sys, self._name) is self:
            setattr(sys, self._name, self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_terminal(name: str) -> bool:
    stream = getattr(sys, name, None)
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:  # it is closed
        return False


def _described(config: Any, default: Any, unicode: bool) -> str:
    """What a configuration changes of the default; all of it where there is none."""
    from ciq_ray.parameter_values import from_configs, text_of

    arrow = "→" if unicode else "->"
    if not isinstance(config, Mapping):
        return " ".join(text_of(config).split())
    if not isinstance(default, Mapping) or not default:
        items = [f"{p.name} {text_of(p.values[0])}" for p in from_configs([config])]
    else:
        items = [
            f"{p.name} {_or_absent(p.values[0])} {arrow} {_or_absent(p.values[1])}"
            for p in from_configs([default, config])
            if p.values[0] != p.values[1]
        ]
        if not items:
            return "the default"
    more = len(items) - _MOST_CHANGES
    return ", ".join(items[:_MOST_CHANGES]) + (f", and {more} more" if more > 0 else "")


def _or_absent(value: Any) -> str:
    from ciq_ray.parameter_values import text_of

    return "absent" if value is None else text_of(value)
