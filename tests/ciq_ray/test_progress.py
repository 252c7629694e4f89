"""The live view on a terminal, and lines where there is none."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import sys
import termios
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from ciq_ray.progress import Progress, Standing

SCRIPT = """
import sys, time
from ciq_ray import Search, SearchConfiguration
from ciq_ray.search_spaces.base import range


def objective(config):
    time.sleep(0.02)
    if config["x"] % 10 == 3:
        raise ValueError("three")
    return config["x"] / 8


if __name__ == "__main__":
    Search(
        objective_function=objective,
        search_space={"x": range(0, 100)},
        search_config=SearchConfiguration(generations=3, pool_size=10),
        seed=1,
        disable_progress_bar="off" in sys.argv,
    ).start(num_workers=2)
"""


class Terminal:
    """A pseudo-terminal and what has been written to it."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (24, 120))
        self.file = os.fdopen(self.slave, "w", encoding=encoding)
        self.written = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        # what has been written arrives some time later; the end is when nobody has the other side any more
        with contextlib.suppress(OSError):
            while True:
                self.written += os.read(self.master, 65536)

    def text(self) -> str:
        """Everything, once it has been read."""
        self.close()
        return self.written.decode()

    def close(self) -> None:
        if self.file.closed:
            return
        self.file.close()
        self._thread.join()
        os.close(self.master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


CLEAR = "\r\x1b[J"
STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def frames(text):
    """What was drawn, one after the other, without colours; the last one is what stays."""
    return [STYLE.sub("", frame).replace("\r\n", "\n") for frame in text.split(CLEAR)[1:]]


def driven(terminal, **options):
    progress = Progress(20, stream=terminal.file, **options)
    for number in range(20):
        best = 20.0 - number
        progress.update(
            status="run_error" if number % 10 == 0 else "ok",
            best=f"{best:g}",
            best_config={"x": 3, "flag": "-O3", "y": 1},
            best_score=best,
            worker=f"native-{number % 2}",
        )
        time.sleep(0.02)
    progress.close()
    return terminal.text()


def test_view_in_a_terminal(terminal):
    text = driven(terminal, default={"x": 3, "flag": "-O2"})
    last = frames(text)[-1]
    assert last.endswith("\n")
    assert "20/20 evaluations" in last
    assert "100%" in last
    assert "best 1  █" in last
    assert last.rstrip().count("\n") == 3
    assert "flag -O2 → -O3, y absent → 1" in last
    assert "x 3" not in last
    assert "2 failed: 2 run_error" in last
    assert "left" not in last
    assert any("2 workers lately" in frame for frame in frames(text))
    assert "\x1b[?25l" not in text  # the cursor is never hidden, so it need not be shown again


def test_drawn_eight_times_a_second_at_most(terminal):
    begun = time.monotonic()
    progress = Progress(100_000, stream=terminal.file)
    while time.monotonic() - begun < 0.5:
        progress.update(best="1", best_score=1.0)
    progress.close()
    assert len(frames(terminal.text())) <= 7


def test_an_update_costs_microseconds(terminal):
    progress = Progress(100_000, stream=terminal.file)
    begun = time.process_time()
    for _ in range(20_000):
        progress.update(best="1", best_score=1.0, worker="native-0")
    cost = (time.process_time() - begun) / 20_000
    progress.close()
    assert cost < 50e-6


def test_without_a_default_the_whole_configuration_is_shown(terminal):
    assert "x 3, flag -O3, y 1" in frames(driven(terminal))[-1]


def test_options_of_a_compiler_are_shown(terminal):
    progress = Progress(2, stream=terminal.file, default="")
    progress.update(best="1", best_config="-O3\n-funroll-loops " + "-x" * 200, best_score=1.0)
    progress.close()
    last = frames(terminal.text())[-1]
    assert "-O3 -funroll-loops" in last
    assert all(len(line) < 120 for line in last.split("\n"))


def test_a_configuration_does_not_steer_the_terminal(terminal):
    progress = Progress(2, stream=terminal.file)
    progress.update(best="1", best_config={"name": "\x1b[2Jgone"}, best_score=1.0)
    progress.close()
    text = terminal.text()
    assert "\x1b[2J" not in text
    assert "name ?[2Jgone" in frames(text)[-1]


def test_view_without_a_total(terminal):
    progress = Progress(None, stream=terminal.file)
    progress.update(best="1")
    progress.close()
    assert frames(terminal.text())[-1].startswith("1 evaluations")


def test_view_of_a_resumed_search_begins_where_it_was(terminal):
    progress = Progress(20, done=15, stream=terminal.file)
    for _ in range(5):
        progress.update(best="1")
    progress.close()
    drawn = frames(terminal.text())
    assert "15/20" in drawn[0]
    assert "20/20" in drawn[-1]


def test_view_moves_while_nothing_happens(terminal):
    progress = Progress(20, stream=terminal.file)
    for _ in range(2):
        time.sleep(0.15)
        progress.tick()
    progress.close()
    assert terminal.text().count("0/20") >= 3


@pytest.mark.parametrize("columns", [12, 30, 60, 200])
def test_lines_fit(terminal, columns):
    termios.tcsetwinsize(terminal.slave, (6, columns))
    text = driven(terminal, default={"x": 3, "flag": "-O2"})
    for frame in frames(text):
        assert all(len(line) < max(columns, 12) for line in frame.split("\r")[0].split("\n"))
        assert frame.count("\n") <= 6


def test_no_colours_where_none_are_wanted(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = driven(terminal)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text)
    assert "20/20" in text


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_a_dumb_terminal_gets_lines(terminal, monkeypatch, kind):
    monkeypatch.setenv("TERM", kind)
    assert driven(terminal) == ""


def test_a_terminal_without_unicode(monkeypatch):
    opened = Terminal(encoding="ascii")
    try:
        last = frames(driven(opened, default={"x": 1}))[-1]
    finally:
        opened.close()
    assert "#" in last
    assert "x 1 -> 3" in last


def test_what_others_print_goes_past(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal.file)
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # not a terminal: left alone
    before, out = sys.stderr, sys.stdout
    progress = Progress(20, stream=terminal.file)
    print("half a ", end="", file=sys.stderr)
    print("line\nand another", file=sys.stderr)
    print("elsewhere")
    with pytest.warns(UserWarning, match="beware"):
        warnings.warn("beware", stacklevel=1)
    time.sleep(0.15)
    progress.tick()
    os.write(terminal.slave, b"from a child\n")
    print("the end", end="", file=sys.stderr)
    progress.close()
    assert sys.stderr is before
    assert sys.stdout is out
    assert out.getvalue() == "elsewhere\n"
    text = terminal.text().replace("\r\n", "\n")
    for line in ("half a line", "and another", "the end"):
        assert f"{CLEAR}{line}\n" in text
    # what comes past finds the cursor in an empty line above the view
    assert re.search(r"\x1b\[\dAfrom a child\n", text)


def test_a_terminal_that_has_gone():
    master, slave = pty.openpty()
    file = os.fdopen(slave, "w")
    progress = Progress(20, stream=file)
    os.close(master)
    time.sleep(0.2)
    progress.update(best="1")
    progress.close()
    with contextlib.suppress(OSError):  # what could not be written
        file.close()


def test_disabled_in_a_terminal(terminal):
    progress = Progress(5, disable=True, stream=terminal.file)
    progress.update(best="1")
    progress.tick()
    progress.close()
    assert terminal.text() == ""


def test_time_left_is_that_of_the_shorter_limit():
    standing = Standing(total=100, time_budget_s=30.0, started=1000.0)
    assert standing.left_s(1000.0) == 30
    standing.done = 10
    assert standing.left_s(1010.0) == 20  # 90 at one a second would take longer
    standing.done = 95
    assert standing.left_s(1020.0) == pytest.approx(5 / (95 / 20))
    assert standing.left_s(1031.0) == 0
    assert Standing().left_s(5.0) is None


def test_rate_is_that_of_late():
    standing = Standing(total=10_000, started=0.0)
    for second in range(1, 100):
        standing.done += 100 if second < 60 else 1
        standing.rate(float(second))
    assert standing.rate(100.0) == pytest.approx(1, abs=0.1)


def test_short_search_writes_nothing_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress(2, stream=stream)
    progress.update(best="1")
    progress.tick()
    progress.update(status="wrong", best="1")
    progress.close()
    assert stream.getvalue() == ""


def test_lines_now_and_then_where_there_is_no_terminal(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ciq_ray.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(120, done=20, stream=stream)
    for number in range(100):
        now[0] += 1
        progress.update(status="run_error" if number == 0 else "ok", best="0.5")
    progress.close()
    progress.close()  # the last line comes once
    assert stream.getvalue().splitlines() == [
        "50/120 evaluations, best 0.5, 1 failed, 1.0/s, 01:10 left",
        "80/120 evaluations, best 0.5, 1 failed, 1.0/s, 00:40 left",
        "110/120 evaluations, best 0.5, 1 failed, 1.0/s, 00:10 left",
        "120/120 evaluations, best 0.5, 1 failed, 1.0/s, 00:00 left",
    ]


def test_lines_without_a_total_or_a_success(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ciq_ray.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(None, stream=stream)
    now[0] += 40
    progress.update(status="wrong", best="")
    assert stream.getvalue() == "1 evaluations, best none yet, 1 failed, 0.0/s\n"


def test_disabled_where_there_is_no_terminal(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ciq_ray.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(2, disable=True, stream=stream)
    now[0] += 40
    progress.update(best="1")
    progress.close()
    assert stream.getvalue() == ""


def test_search_in_a_terminal(scripts, terminal):
    process = scripts.start(scripts.write(SCRIPT), stderr=terminal.slave)
    out, _ = process.communicate(timeout=60)
    text = terminal.text()
    assert process.returncode == 0, text
    assert out == ""
    assert "run 1: " in text
    last = frames(text)[-1]
    assert "30/30" in last
    assert re.search(r"best [0-9.]+", last)
    assert re.search(r"x [0-9]+", last)
    assert " run_error" in last


def test_interrupted_in_a_terminal(scripts, terminal, wait_for):
    process = scripts.start(scripts.write(SCRIPT.replace("0.02", "0.2")), stderr=terminal.slave)
    wait_for(lambda: b"best" in terminal.written, "a first evaluation")
    before = termios.tcgetattr(terminal.slave)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert termios.tcgetattr(terminal.slave) == before
    text = terminal.text()
    assert process.returncode == 0, text
    stopping = text.index("stopping: waiting")
    assert text.rindex("\x1b[J", 0, stopping) > 0
    assert text.endswith("ciq resume " + text.split("ciq resume ")[-1])
    assert "stopped; go on with" in text.split(CLEAR)[-1]


def test_search_without_a_terminal(scripts, runs):
    done = scripts.run(scripts.write(SCRIPT))
    assert done.stdout == ""
    assert done.stderr == f"run 1: {runs / '1'}\n"
    assert "\r" not in done.stderr
