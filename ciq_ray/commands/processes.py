"""Running one command to its end: output kept within bounds, time measured, no process left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ciq_ray.worker.guard import kill_families, mark_name

__all__ = ["OUTPUT_LIMIT", "Finished", "Sink", "run_command"]

OUTPUT_LIMIT: Final = 4 << 20
"""Bytes of each stream that are kept, from its end."""
_CHUNK: Final = 1 << 16
_POLL_S: Final = 0.002
_TAIL_BYTES: Final = 2048
_HAS_PIDFD: Final = hasattr(os, "pidfd_open")

Sink = Callable[[bytes], None]
"""Takes what a command prints, as it comes."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended.

    Attributes:
        code: Its exit status, negative for the signal that killed it; ``None`` if it was stopped at its
            limit or never started.
        timed_out: Whether it was stopped at its limit.
        seconds: From its start to its end.
        stdout: What it printed, the last `OUTPUT_LIMIT` bytes.
        stderr: The same of its standard error.
        dropped: Bytes that were too many to be kept.
        error: Why it could not be started.
    """

    code: int | None
    timed_out: bool
    seconds: float
    stdout: bytes = b""
    stderr: bytes = b""
    dropped: int = 0
    error: str = ""

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.error:
            return f"cannot be started: {self.error}"
        if self.timed_out or self.code is None:
            return f"was stopped after {self.seconds:.3g} s"
        if self.code >= 0:
            return f"exited with status {self.code}"
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            return f"was killed by signal {-self.code}"
        return f"was killed by {name} ({signal.strsignal(-self.code)})"

    @property
    def tail(self) -> str:
        """The end of what it printed, standard error last; empty if it printed nothing."""
        parts = []
        for data in (self.stdout, self.stderr):
            text = data[-_TAIL_BYTES:].decode("utf-8", "replace").strip()
            if text:
                parts.append(text if len(data) <= _TAIL_BYTES else f"...{text}")
        return "\n".join(parts)


def run_command(
    argv: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    timeout: float | None = None,
    sink: Sink | None = None,
) -> Finished:
    """Run a command; when this returns, nothing it started is running any more.

    Its standard input is empty. It gets a session and a process group of its own. Whatever it leaves
    behind is killed, also what has left its group, so that it disturbs no later measurement.

    Args:
        argv: The program and its arguments; passed on as they are, in UTF-8.
        directory: Where it runs; a program given with a relative path is looked for there.
        environment: All its variables.
        timeout: Seconds after which it is killed.
        sink: Gets everything it prints, however much.
    """
    mark = mark_name(secrets.token_hex(8))
    variables = {_bytes(name): _bytes(value) for name, value in environment.items()}
    variables[mark.encode()] = b"1"
    started = time.perf_counter()
    try:
        process = subprocess.Popen(
            [_bytes(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env=variables,
            start_new_session=True,
        )
    except OSError as error:
        what = str(error.strerror or error)
        if isinstance(error.filename, (str, bytes)):
            what += f": {os.fsdecode(error.filename)!r}"
        return Finished(None, False, time.perf_counter() - started, error=what)
    tails = (_Tail(), _Tail())
    try:
        ended = _watch(process, tails, None if timeout is None else started + timeout, sink)
        seconds = time.perf_counter() - started
    finally:
        # not reaped yet, so that its number is still its own
        kill_families([process.pid], [f"{mark}="])
        process.wait()
        for stream, tail in zip((process.stdout, process.stderr), tails, strict=True):
            if stream is not None:
                _drain(stream, tail, sink)
                stream.close()
    return Finished(
        process.returncode if ended else None,
        not ended,
        seconds,
        tails[0].data(),
        tails[1].data(),
        tails[0].dropped + tails[1].dropped,
    )


class _Tail:
    """The last bytes of a stream."""

    def __init__(self) -> None:
        self.dropped = 0
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        while self._size - len(self._chunks[0]) >= OUTPUT_LIMIT:
            gone = len(self._chunks.popleft())
            self._size -= gone
            self.dropped += gone

    def data(self) -> bytes:
        return b"".join(self._chunks)


def _watch(
    process: subprocess.Popen[bytes], tails: tuple[_Tail, _Tail], deadline: float | None, sink: Sink | None
) -> bool:
    """Read what it prints until it ends; false if it did not end in time."""
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for stream, tail in zip((process.stdout, process.stderr), tails, strict=True):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, tail)
        if _HAS_PIDFD:
            descriptor = os.pidfd_open(process.pid)
            stack.callback(os.close, descriptor)
            selector.register(descriptor, selectors.EVENT_READ, None)
        while True:
            left = None if deadline is None else deadline - time.perf_counter()
            if left is not None and left <= 0:
                return False
            wait = left if _HAS_PIDFD else _POLL_S
            ready = selector.select(wait)
            # the end of the process, not of its output: a child may hold that open for ever
            if any(key.data is None for key, _ in ready) or (not _HAS_PIDFD and _has_ended(process.pid)):
                return True
            for key, _ in ready:
                data = os.read(key.fd, _CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                key.data.add(data)
                if sink is not None:
                    sink(data)


def _drain(stream: IO[bytes], tail: _Tail, sink: Sink | None) -> None:
    """What is left in a pipe nobody writes to any more."""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(stream.fileno(), _CHUNK):
            tail.add(data)
            if sink is not None:
                sink(data)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
