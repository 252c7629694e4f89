"""Progress on a terminal, and where there is none."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import termios
import threading
from collections.abc import Iterator

import pytest

from ciq_ray.progress import Progress

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

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (24, 120))
        self.file = os.fdopen(self.slave, "w")
        self.written = b""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self.master], [], [], 0.05)
            if not ready:
                if self._ended.is_set():
                    return
                continue
            try:
                self.written += os.read(self.master, 65536)
            except OSError:
                return

    def text(self) -> str:
        """Everything, once it has been read."""
        self.close()
        return self.written.decode()

    def close(self) -> None:
        if self.file.closed:
            return
        self.file.flush()
        self._ended.set()
        self._thread.join()
        self.file.close()
        os.close(self.master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


def test_bar_in_a_terminal(terminal):
    progress = Progress(20, stream=terminal.file)
    for number in range(20):
        progress.update(failed=number % 10 == 0, best="0.125")
    progress.close()
    text = terminal.text()
    assert "\r" in text
    last = text.split("\r")[-2] if text.endswith("\r\n") else text.split("\r")[-1]
    assert "20/20" in last
    assert "100%" in last
    assert "best 0.125, 2 failed" in last
    assert re.search(r"eval/s|s/eval", last)


def test_bar_without_a_total(terminal):
    progress = Progress(None, stream=terminal.file)
    progress.update(failed=False, best="1")
    progress.close()
    assert "1eval" in terminal.text()


def test_bar_of_a_resumed_search_begins_where_it_was(terminal):
    progress = Progress(20, done=15, stream=terminal.file)
    for _ in range(5):
        progress.update(failed=False, best="1")
    progress.close()
    text = terminal.text()
    assert "15/20" in text.split("\r")[1]
    assert "20/20" in text


def test_bar_moves_while_nothing_happens(terminal):
    progress = Progress(20, stream=terminal.file)
    progress.tick()
    progress.tick()
    progress.close()
    assert terminal.text().count("0/20") >= 3


def test_disabled_in_a_terminal(terminal):
    progress = Progress(5, disable=True, stream=terminal.file)
    progress.update(failed=False, best="1")
    progress.tick()
    progress.close()
    assert terminal.text() == ""


def test_short_search_writes_nothing_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = Progress(2, stream=stream)
    progress.update(failed=False, best="1")
    progress.tick()
    progress.update(failed=True, best="1")
    progress.close()
    assert stream.getvalue() == ""


def test_lines_now_and_then_where_there_is_no_terminal(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ciq_ray.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(120, done=20, stream=stream)
    for number in range(100):
        now[0] += 1
        progress.update(failed=number == 0, best="0.5")
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
    progress.update(failed=True, best="")
    assert stream.getvalue() == "1 evaluations, best none yet, 1 failed, 0.0/s\n"


def test_disabled_where_there_is_no_terminal(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ciq_ray.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = Progress(2, disable=True, stream=stream)
    now[0] += 40
    progress.update(failed=False, best="1")
    progress.close()
    assert stream.getvalue() == ""


def test_search_in_a_terminal(scripts, terminal):
    process = scripts.start(scripts.write(SCRIPT), stderr=terminal.slave)
    out, _ = process.communicate(timeout=60)
    text = terminal.text()
    assert process.returncode == 0, text
    assert out == ""
    assert "run 1: " in text
    assert "30/30" in text
    assert re.search(r"best [0-9.]+", text)
    assert " failed" in text


def test_search_without_a_terminal(scripts, runs):
    done = scripts.run(scripts.write(SCRIPT))
    assert done.stdout == ""
    assert done.stderr == f"run 1: {runs / '1'}\n"
    assert "\r" not in done.stderr
